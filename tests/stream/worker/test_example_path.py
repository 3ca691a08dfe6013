"""From a click through what is shown to the next click: an example in the topic, as the list was ranked."""

import json

import numpy as np
import pytest

from model.learning.cycle import CycleInput, CycleSettings, run_cycle
from model.ranker.network import Ranker
from model.ranking.features import NAMES, SCHEMA, START
from model.ranking.stages import Stages
from model.settings import ModelSettings, RankingSettings, TrainingSettings
from state.events import hash_id, hash_ids
from stream.kafka.examples import unpack
from stream.worker.example_sender import ExampleSender
from stream.worker.pipeline import Pipeline
from stream.worker.recommender import Recommender
from stream.worker.served_versions import ServedVersion
from tests.stream.fakes import CLICKS, REQUESTS, scenario_with, until
from tests.stream.kafka.test_decode import Record
from tests.stream.worker.test_pipeline import TS, Shop

USERS = [f"user-{n}" for n in range(20)]


class LearningShop(Shop):
    """A worker whose version has a ranker, and whose examples are sent."""

    def __init__(self, config, monkeypatch) -> None:
        super().__init__(config, monkeypatch)

        async def exists(_) -> bool:
            return True

        self.counts = {"sent": 0, "lost": 0}
        self.sender = ExampleSender(config, self.producer, self.lease, self.count, exists)
        self.at = TS
        self.begin()

    def count(self, outcome: str, count: int) -> None:
        self.counts[outcome] += count

    @property
    def made(self) -> int:
        """Examples that the worker has learned from, which are those that it sends."""
        return self.recommender.versions.rankers.seen

    def begin(self) -> None:
        """Start the pipeline, as a process does."""
        self.pipeline = Pipeline(
            self.config, self.consumer, self.producer, self.assignment, self.recommender, self.lease,
            examples=self.sender,
        )  # fmt: skip

    def serve(self, *, with_ranker: bool = True) -> None:
        """Let a version answer that has learned what the store holds."""
        items = self.store.all_items()
        names = {h: i.decode() for h, i in zip(items.tolist(), self.store.item_ids(items), strict=True)}
        training = TrainingSettings(warm_up_epochs=1, epochs=1, last_epochs=1)
        settings = CycleSettings(ModelSettings(dim=8), training, RankingSettings(), self.config.state)
        users = np.sort(hash_ids([u.encode() for u in USERS]))
        trained = run_cycle(None, CycleInput(self.store.sequences(users), names, self.store.rows, 0), settings)
        ranker = Ranker(len(NAMES), START) if with_ranker else None
        stages = Stages(trained.model, trained.vocabulary, trained.fusion, RankingSettings(), ranker)
        self.recommender.versions.serve(ServedVersion("000001", 0, stages))

    def event(self, user: str, item: str, **more) -> dict:
        self.at += 60_000
        return {"user": user, "item": item, "ts": self.at} | more

    async def click(self, *events: dict) -> None:
        """Let these events come, and wait until their users are answered and their examples sent."""
        await self.poll({CLICKS: self.records(*events)})
        await until(lambda: self.store.answered() == self.store.progress.next_offset)

    @property
    def examples(self) -> list[tuple[bytes | None, bytes | None]]:
        return self.producer.to(self.config.topics.examples)


async def open_learning_shop(config, monkeypatch) -> LearningShop:
    """A `LearningShop` in which twenty users have clicked."""
    shop = LearningShop(config, monkeypatch)
    await shop.assign()
    shop.apply(*(shop.event(user, f"item-{(lap + n) % 12}") for lap in range(6) for n, user in enumerate(USERS)))
    shop.serve()
    shop.start(shop.pipeline.answer())
    shop.start(shop.sender.run())
    await shop.click(shop.event("user-0", "item-1"))
    shop.recommender.last_shown.clear()  # each story begins with its own first list
    return shop


with_learning_shop = scenario_with(open_learning_shop)


@with_learning_shop
async def test_the_next_click_after_a_recommendation_is_an_example_with_the_features_of_its_ranking(shop):
    stages, ranked = shop.recommender.versions.champion.stages, []
    rank = stages.rank

    def watched(*args, **options):
        ranked.append(rank(*args, **options))
        return ranked[-1]

    stages.rank = watched
    await shop.click(shop.event("user-3", "item-9"))
    asked_at = shop.at
    await shop.click(shop.event("user-3", "item-10"))
    await until(lambda: shop.examples)
    [(key, value)] = shop.examples
    found = unpack(value, hash_id("user-3"), SCHEMA, len(NAMES))
    assert (key, found.moment, found.ts, found.version) == (b"user-3", asked_at, shop.at, "000001")
    assert found.items[0] == hash_id("item-10")
    [shown] = ranked[0].shown
    features = dict(zip(shown.items.tolist(), shown.features.tolist(), strict=True))
    assert all(features[item] == f for item, f in zip(found.items.tolist(), found.features.tolist(), strict=True))
    assert json.loads(shop.recommendations()[-1][1])["source"] == "ranker"


@with_learning_shop
async def test_until_there_is_a_ranker_the_fusion_answers_and_its_lists_make_examples(shop):
    shop.serve(with_ranker=False)
    await shop.click(shop.event("user-3", "item-9"))
    await shop.click(shop.event("user-3", "item-10"))
    await until(lambda: shop.examples)
    [(_, value)] = shop.examples
    assert unpack(value, 1, SCHEMA, len(NAMES)).items[0] == hash_id("item-10")
    assert json.loads(shop.recommendations()[-1][1])["source"] == "model"


@pytest.mark.parametrize("with_ranker", [True, False], ids=["ranker", "fusion"])
def test_an_item_that_a_user_has_hidden_is_in_no_example(tmp_path, monkeypatch, with_ranker):
    @with_learning_shop
    async def scenario(shop):
        shop.serve(with_ranker=with_ranker)
        await shop.click(shop.event("user-3", "item-9"), shop.event("user-4", "item-9"))
        await shop.click(shop.event("user-3", "item-4", event="hide"))
        await shop.click(shop.event("user-3", "item-10"), shop.event("user-4", "item-10"))
        await until(lambda: len(shop.examples) == 2)
        items = {key: set(unpack(value, 1, SCHEMA, len(NAMES)).items.tolist()) for key, value in shop.examples}
        assert hash_id("item-4") in items[b"user-4"] - items[b"user-3"]

    scenario(tmp_path, monkeypatch)


@with_learning_shop
async def test_of_a_pushed_answer_and_the_answer_to_a_request_the_later_one_counts_at_its_own_moment(shop):
    await shop.click(shop.event("user-3", "item-9"))
    pushed_at = shop.at
    await shop.click(shop.event("user-5", "item-3"))  # event time goes on
    await shop.poll({REQUESTS: [Record(b'{"user": "user-3", "id": 7}', 0)]})
    await until(lambda: shop.producer.to(shop.config.topics.replies))
    await shop.click(shop.event("user-3", "item-10"))
    await until(lambda: shop.examples)
    [(_, value)] = shop.examples
    moment = unpack(value, 1, SCHEMA, len(NAMES)).moment
    assert pushed_at + 60_000 <= moment < shop.at


@pytest.mark.parametrize("with_ranker", [True, False], ids=["ranker", "fusion"])
def test_a_user_without_events_gets_popular_items_and_makes_no_example(tmp_path, monkeypatch, with_ranker):
    @scenario_with
    async def with_two_partitions(config, monkeypatch):
        shop = await open_learning_shop(config, monkeypatch)
        await shop.assign_another()
        shop.serve(with_ranker=with_ranker)
        return shop

    @with_two_partitions
    async def scenario(shop):
        await shop.poll({REQUESTS: [Record(b'{"user": "nobody", "id": 7}', 0)]})
        await until(lambda: shop.producer.to(shop.config.topics.replies))
        [(_, reply)] = shop.producer.to(shop.config.topics.replies)
        assert json.loads(reply)["source"] == "popularity"
        assert not len(shop.recommender.last_shown)

    scenario(tmp_path, monkeypatch)


@with_learning_shop
async def test_a_forgotten_user_leaves_no_list_no_example_on_its_way_and_a_tombstone_in_the_topic(shop):
    await shop.click(shop.event("user-3", "item-9"), shop.event("user-4", "item-2"))
    await shop.click(shop.event("user-3", "item-10"))
    await until(lambda: shop.examples)
    await shop.poll({CLICKS: shop.records({"user": "user-3", "event": "forget", "ts": shop.at})})
    await until(lambda: shop.examples[-1] == (b"user-3", None))
    await shop.click(shop.event("user-3", "item-11"))  # the user comes back: nothing from before is joined
    await shop.click(shop.event("user-4", "item-3"))
    await until(lambda: shop.examples[-1][0] == b"user-4")
    assert [key for key, value in shop.examples if value] == [b"user-3", b"user-4"]


@with_learning_shop
async def test_a_repeated_event_makes_no_second_example(shop):
    await shop.click(shop.event("user-3", "item-9"))
    again = shop.event("user-3", "item-10", id="click-7")
    await shop.click(again)
    await shop.poll({CLICKS: shop.records(again)})
    await shop.click(shop.event("user-3", "item-11"))
    await until(lambda: len(shop.examples) == 2)
    taken = [unpack(value, 1, SCHEMA, len(NAMES)).items[0] for _, value in shop.examples]
    assert taken == [hash_id("item-10"), hash_id("item-11")]


@with_learning_shop
async def test_what_waited_is_lost_with_a_process_and_the_next_list_makes_the_next_example(shop):
    await shop.click(shop.event("user-3", "item-9"))
    shop.recommender = Recommender(shop.config, shop.assignment.stores, None)
    shop.begin()
    shop.serve()
    shop.start(shop.pipeline.answer())
    await shop.click(shop.event("user-3", "item-10"))
    assert shop.examples == []
    await shop.click(shop.event("user-3", "item-11"))
    await until(lambda: shop.examples)
    assert len(shop.examples) == 1


@with_learning_shop
async def test_a_partition_that_comes_back_joins_nothing_from_before(shop):
    """Its owner in between has applied what its users did next."""
    await shop.click(shop.event("user-3", "item-9"))
    assert len(shop.recommender.last_shown)
    await shop.revoke()
    await shop.assign()
    assert not len(shop.recommender.last_shown)


def test_with_another_future_in_the_same_batch_the_examples_before_it_are_identical(tmp_path, monkeypatch):
    """Each poll has ten events. In the fourth one the first half is the same, and from there on everything differs."""

    def run(future: int) -> list[tuple[bytes | None, bytes | None]]:
        found: list[tuple[bytes | None, bytes | None]] = []

        @scenario_with
        async def shop_of_this_run(config, monkeypatch):
            return await open_learning_shop(config, monkeypatch)

        @shop_of_this_run
        async def scenario(shop):
            draw, other = np.random.default_rng(0), np.random.default_rng(future)
            for at in range(0, 60, 10):
                sources = [draw if at + n < 35 else other for n in range(10)]
                await shop.click(*(shop.event(f"user-{s.integers(20)}", f"item-{s.integers(12)}") for s in sources))
            await until(lambda: shop.counts["sent"] == shop.made)
            found.extend(shop.examples)

        scenario(tmp_path / str(future), monkeypatch)
        return found

    one, two = run(1), run(2)
    begins = TS + 60_000 * (6 * len(USERS) + 1 + 35)  # event time of the last event that both streams have

    def before(messages: list[tuple[bytes | None, bytes | None]]) -> list[tuple[bytes | None, bytes | None]]:
        return [(key, value) for key, value in messages if unpack(value, 1, SCHEMA, len(NAMES)).ts <= begins]

    assert before(one) == before(two)
    assert len(before(one)) > 5
    assert one != two
