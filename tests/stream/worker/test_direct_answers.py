"""Requests to the process itself are ranked in batches, from the stores that it owns."""

import asyncio

from stream.config import WorkerSettings
from tests.stream.fakes import until
from tests.stream.worker.test_pipeline import Shop, with_shop


def items(answer) -> list[str]:
    return [item.item for item in answer.items]


@with_shop
async def test_a_user_of_this_worker_is_answered(shop: Shop):
    direct = shop.pipeline.direct
    shop.start(direct.run())
    shop.apply({"user": "ann", "item": "milk"}, {"user": "bob", "item": "tea"})
    assert direct.owns(0)
    assert not direct.owns(1)
    for user in ("ann", "nobody"):
        answer = await direct.recommend(user, 0)
        assert answer is not None
        assert (answer.user, answer.source, set(items(answer))) == (user, "popularity", {"milk", "tea"})
        assert answer.offset == 1


@with_shop
async def test_requests_that_come_together_are_ranked_together(shop: Shop):
    shop.apply(*({"user": f"user-{n}", "item": "milk"} for n in range(20)))
    ranked: list[int] = []
    recommend = shop.recommender.recommend
    shop.recommender.recommend = lambda n, users, **more: ranked.append(len(users)) or recommend(n, users, **more)
    shop.start(shop.pipeline.direct.run())
    asked = [shop.pipeline.direct.recommend(f"user-{n % 20}", 0) for n in range(30)]
    answers = await asyncio.gather(*asked)
    assert [answer.user for answer in answers] == [f"user-{n % 20}" for n in range(30)]
    assert ranked == [20], "each user once"


@with_shop
async def test_while_the_store_is_not_usable_there_is_no_answer_and_afterwards_there_is(shop: Shop):
    direct = shop.pipeline.direct
    shop.start(direct.run())
    shop.apply({"user": "ann", "item": "milk"})
    shop.lease.held = False
    assert await direct.recommend("ann", 0) is None, "another worker may own the partition"
    shop.lease.held = True
    assert await direct.recommend("ann", 0) is not None
    assert await direct.recommend("ann", 7) is None, "no partition of ours"
    await shop.revoke()
    assert not direct.owns(0)
    assert await direct.recommend("ann", 0) is None


@with_shop
async def test_more_requests_than_may_wait_are_not_answered(shop: Shop):
    direct = shop.pipeline.direct
    shop.apply({"user": "ann", "item": "milk"})
    most = WorkerSettings().requests_per_poll
    asked = [asyncio.create_task(direct.recommend("ann", 0)) for _ in range(most + 10)]
    await until(lambda: sum(task.done() for task in asked) == 10)
    shop.start(direct.run())
    answers = await asyncio.gather(*asked)
    assert sum(answer is None for answer in answers) == 10


@with_shop
async def test_a_request_that_was_given_up_holds_nobody_up(shop: Shop):
    direct = shop.pipeline.direct
    shop.apply({"user": "ann", "item": "milk"})
    late = asyncio.create_task(direct.recommend("ann", 0))
    await asyncio.sleep(0)
    late.cancel()
    shop.start(direct.run())
    assert await direct.recommend("ann", 0) is not None
