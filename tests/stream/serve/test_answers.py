"""What is answered when the owner of a user answers, is late, or never was there."""

import asyncio
import functools

import msgspec

from stream.config import Config, RankingSettings
from stream.kafka.documents import ItemReport, TitledFollower
from stream.kafka.messages import Recommendation, Recommended
from stream.serve.answers import OwnersAnswers
from stream.serve.follower import Follower
from stream.serve.owners import SILENT_AFTER_S, TRY_EVERY_S, KnownItem, Silence
from stream.times import now_ms
from tests.stream.serve.test_last_recommendations import message

CONFIG = Config(broker="nowhere:1", ranking=RankingSettings(k=2))


def recommendation(*items: str, source: str = "model", ago_s: float = 0.0) -> Recommendation:
    return Recommendation(
        user="", items=[Recommended(item, 1.0) for item in items], model="000007" if source == "model" else None,
        model_age_s=None, source=source, event_ts=5, emitted_ts=now_ms() - int(ago_s * 1000), partition=1, offset=9,
    )  # fmt: skip


class FixedOwners:
    """Workers that answer what a test decides; None: not in time."""

    def __init__(self) -> None:
        self.users: dict[str, Recommendation] = {}
        self.items: dict[str, KnownItem] = {}
        self.popular_items: list[Recommended] | None = None
        self.asked: list[str] = []

    async def recommendation(self, user: str, within_s: float) -> Recommendation | None:
        self.asked.append(user)
        assert within_s == CONFIG.serve.timeout_ms / 1000
        return self.users.get(user)

    async def item(self, item: str, within_s: float) -> KnownItem | None:
        self.asked.append(item)
        return self.items.get(item)

    async def popular(self, within_s: float) -> list[Recommended] | None:
        return self.popular_items


class Case:
    """Answers over owners, and what was followed."""

    def __init__(self) -> None:
        self.owners, self.follower = FixedOwners(), Follower(CONFIG)
        self.answers = OwnersAnswers(CONFIG, self.follower)
        self.answers.owners = self.owners

    async def know_popular(self, *items: str) -> None:
        self.owners.popular_items = recommendation(*items).items
        keeping = asyncio.create_task(self.answers.keep_popular())
        await asyncio.sleep(0.01)
        keeping.cancel()


def scenario(run):
    @functools.wraps(run)
    def test() -> None:
        asyncio.run(run(Case()))

    del test.__wrapped__
    return test


@scenario
async def test_the_owner_answers(case: Case):
    case.owners.users["ann"] = recommendation("milk", "tea")
    case.follower.last.update(b"ann", message("ann", "old"))
    answer = await case.answers.recommend("ann")
    assert [item.item for item in answer.items] == ["milk", "tea"]
    assert (answer.user, answer.source, answer.model, answer.fallback) == ("ann", "model", "000007", None)
    assert (answer.partition, answer.offset, answer.event_ts) == (1, 9, 5)
    assert answer.age_s is not None
    assert answer.age_s < 1


@scenario
async def test_without_the_owner_the_last_recommendation_is_answered_with_its_age(case: Case):
    await case.know_popular("bread")
    case.follower.last.update(b"ann", msgspec.json.encode(recommendation("milk", ago_s=90)))
    answer = await case.answers.recommend("ann")
    assert [item.item for item in answer.items] == ["milk"]
    assert (answer.source, answer.fallback) == ("model", "last")
    assert answer.age_s is not None
    assert 89 < answer.age_s < 100


@scenario
async def test_a_user_without_one_gets_what_is_popular(case: Case):
    await case.know_popular("bread", "beer", "eggs")
    answer = await case.answers.recommend("ann")
    assert [item.item for item in answer.items] == ["bread", "beer"], "ranking.k of them"
    assert (answer.source, answer.fallback) == ("popularity", "popular")
    assert (answer.partition, answer.offset, answer.event_ts) == (None, None, None), "they reflect no event of the user"


@scenario
async def test_a_forgotten_user_gets_what_is_popular(case: Case):
    await case.know_popular("bread")
    case.follower.last.update(b"ann", message("ann", "milk"))
    case.follower.last.update(b"ann", None)
    assert (await case.answers.recommend("ann")).fallback == "popular"


@scenario
async def test_where_nothing_is_known_the_answer_says_so_and_is_no_error(case: Case):
    answer = await case.answers.recommend("ann")
    assert (answer.items, answer.source, answer.fallback) == ([], "none", "none")
    unconnected = OwnersAnswers(CONFIG, case.follower)
    assert (await unconnected.recommend("ann")).fallback == "none"
    assert (await unconnected.related("milk")).fallback == "none"
    [unsent] = await unconnected.publish([(b"ann", b"{}")])
    assert unsent is not None
    assert unsent.again


@scenario
async def test_what_is_popular_is_kept_while_no_worker_answers(case: Case):
    await case.know_popular("bread")
    case.owners.popular_items = None
    keeping = asyncio.create_task(case.answers.keep_popular())
    await asyncio.sleep(0.01)
    keeping.cancel()
    assert (await case.answers.recommend("ann")).fallback == "popular"


@scenario
async def test_no_fallback_has_an_item_that_was_withdrawn_since(case: Case):
    await case.know_popular("bread", "beer")
    case.follower.last.update(b"ann", message("ann", "milk", "tea"))
    case.follower.last.update(b"bob", message("bob", "milk"))
    case.follower.withdrawn |= {"milk", "bread"}
    assert [item.item for item in (await case.answers.recommend("ann")).items] == ["tea"]
    assert [item.item for item in (await case.answers.recommend("bob")).items] == ["beer"], (
        "nothing is left of the last"
    )


def report(*followers: str, complete: bool = True) -> KnownItem:
    next_ones = [TitledFollower(item, None, 2.0) for item in followers]
    found = ItemReport(item="milk", title="Milk", degree=3, popularity=1.0, next=next_ones, known_to_model=None)
    return KnownItem(found, complete)


@scenario
async def test_related_items_are_kept_for_some_seconds(case: Case):
    case.owners.items["milk"] = report("tea", "beer")
    for _ in range(3):
        answer = await case.answers.related("milk")
        assert [item.item for item in answer.items] == ["tea", "beer"]
        assert (answer.title, answer.events, answer.fallback) == ("Milk", 3, None)
    assert case.owners.asked == ["milk"]
    case.follower.withdrawn.add("tea")
    assert [item.item for item in (await case.answers.related("milk")).items] == ["beer"]
    assert (await case.answers.related("unknown")).fallback == "none"


def test_related_items_are_the_last_ones_while_no_worker_answers(monkeypatch):
    monkeypatch.setattr("stream.serve.answers.RELATED_FRESH_S", -1.0)

    @scenario
    async def run(case: Case):
        case.owners.items["milk"] = report("tea")
        await case.answers.related("milk")
        case.owners.items.clear()
        answer = await case.answers.related("milk")
        assert ([item.item for item in answer.items], answer.fallback) == (["tea"], "last")
        case.owners.items["milk"] = report("beer", complete=False)
        answer = await case.answers.related("milk")
        assert ([item.item for item in answer.items], answer.fallback) == (["tea"], "last"), "it was complete"
        case.owners.items["tea"] = report("beer", complete=False)
        answer = await case.answers.related("tea")
        assert ([item.item for item in answer.items], answer.fallback) == (["beer"], "partial")
        case.owners.items.clear()
        assert (await case.answers.related("tea")).fallback == "none", "what is not complete is not kept"

    run()


def test_related_items_are_kept_in_bounded_memory(monkeypatch):
    monkeypatch.setattr("stream.serve.answers.MAX_RELATED", 2)

    @scenario
    async def run(case: Case):
        for item in ("a", "b", "a", "c", "a", "b"):
            case.owners.items[item] = report("tea")
            await case.answers.related(item)
        assert case.owners.asked == ["a", "b", "c", "b"]

    run()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_partition_that_does_not_answer_is_asked_rarely_until_it_does():
    clock = Clock()
    silence = Silence(clock)
    assert silence.may_ask(0)
    silence.asked(0, answered=False)
    assert silence.may_ask(0), "one late answer is no silence"
    clock.now += SILENT_AFTER_S
    silence.asked(0, answered=False)
    assert [silence.may_ask(0) for _ in range(3)] == [True, False, False]
    assert silence.may_ask(1), "another one"
    clock.now += TRY_EVERY_S
    assert [silence.may_ask(0) for _ in range(3)] == [True, False, False]
    silence.asked(0, answered=True)
    assert all(silence.may_ask(0) for _ in range(3))
