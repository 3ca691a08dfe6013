"""The trainer's cycles: whatever goes wrong, the champion serves and the next cycle begins where learning stopped."""

import asyncio
import contextlib
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from aiokafka.errors import RequestTimedOutError
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

from model.errors import ArtifactError
from model.learning.cycle import CycleInput
from model.learning.gate import Verdict
from model.learning.versions import list_versions, load
from model.settings import GateSettings, ModelSettings, RankingSettings, TrainingSettings
from state.events import Ids, hash_id, hash_ids, make_batch
from state.id_hash import new_key
from state.identity import KEYED_LAYOUT, Identity
from state.settings import StateSettings
from state.store import Store
from stream.config import Config, TrainerSettings
from stream.errors import BrokerUnavailable
from stream.kafka.messages import Command, CommandReply, Pointer, encode
from stream.kafka.pointers import MODEL_NAME, pointer_to
from stream.metrics.catalogue import CYCLE_PHASES
from stream.trainer import champion, status_file, trainer, trigger
from stream.trainer.trainer import Trainer
from stream.trainer.training_data import News, gone

STATE = StateSettings(neighbours_per_item=4, sequence_events=20)
CYCLE_EVENTS = 400


class Topics:
    """A publisher whose pointers come back to the trainer as the topic would bring them."""

    def __init__(self) -> None:
        self.pointers: list[Pointer] = []
        self.replies: list[CommandReply] = []
        self.trainer: Trainer | None = None

    async def send_and_wait(self, topic: str, value: bytes, key: bytes) -> None:
        if topic == "models":
            pointer = msgspec.json.decode(value, type=Pointer)
            self.pointers.append(pointer)
            await self.trainer.on_pointer(pointer)
        else:
            self.replies.append(msgspec.json.decode(value, type=CommandReply))

    def messages(self, status: str) -> list[str]:
        return [r.message for r in self.replies if r.status == status]


class Shop:
    """A store that events are written to, and the trainer beside it."""

    def __init__(self, data: Path) -> None:
        self.config = Config(
            data=data,
            state=STATE,
            model=ModelSettings(dim=8),
            training=TrainingSettings(warm_up_epochs=1, epochs=1, last_epochs=1, negatives=8, holdout_events=60),
            trainer=TrainerSettings(every_events=CYCLE_EVENTS, min_events=100, every_s=3600.0),
        )
        self.store = Store(data / "clicks-0", Identity("cluster", "clicks", 0, 1, 20, 4), STATE)
        self.draw = np.random.default_rng(0)
        self.jumped_ms = 0
        self.topics = Topics()
        self.start_trainer()

    def start_trainer(self) -> None:
        """Start a trainer process."""
        self.trainer = self.topics.trainer = Trainer(self.config, self.topics)

    def restart_with(self, **changed) -> None:
        """Start another trainer process with changed settings."""
        self.config = msgspec.structs.replace(self.config, **changed)
        self.start_trainer()

    def click(self, users: list[str], items: list[str] | None = None) -> None:
        items = items or [f"item-{n}" for n in self.draw.integers(0, 30, len(users))]
        start = self.store.progress.next_offset
        offset = start + np.arange(len(users))
        ts = 1_600_000_000_000 + 1000 * offset + self.jumped_ms
        names = [u.encode() for u in users], [i.encode() for i in items]
        batch = make_batch(*names, ts=ts, offset=offset, hashed_by=self.store.ids.of_many)
        self.store.apply(batch, start + len(users))

    def replace_id_key(self) -> None:
        """Build the state again with another key of its ids, and restart the trainer."""
        self.store.close()
        self.store.path.rename(self.store.path.with_name("aside-clicks-0-1"))
        identity = Identity("cluster", "clicks", 0, 1, 20, 4, layout=KEYED_LAYOUT, id_key=new_key())
        self.store = Store(self.store.path, identity, STATE)
        self.start_trainer()

    def crowd(self, count: int) -> None:
        self.click([f"user-{n}" for n in self.draw.integers(0, 80, count)])

    def run_due_cycle(self) -> None:
        """Let the trainer count new events, and run a cycle if one is due."""
        asyncio.run(self.trainer.cycle_if_due())

    def command(self, **more) -> None:
        asyncio.run(self.trainer.on_command(encode(Command("retrain", f"id-{len(self.topics.replies)}", **more))))

    @property
    def champion(self) -> str | None:
        served = self.trainer.champion.pointers.champion
        return served.version if served else None

    @property
    def versions(self) -> list:
        return list_versions(self.config.artifacts_url, MODEL_NAME)


@pytest.fixture
def shop(tmp_path):
    made = Shop(tmp_path)
    yield made
    made.store.close()


def test_a_cycle_runs_once_there_are_enough_events(shop):
    shop.crowd(CYCLE_EVENTS - 1)
    shop.run_due_cycle()
    assert shop.versions == []
    shop.crowd(1)
    shop.run_due_cycle()
    assert shop.champion == "000001"
    assert shop.versions[0].offsets == {0: CYCLE_EVENTS}
    assert shop.versions[0].verdict == Verdict(True, "promoted: the first version")
    shop.run_due_cycle()
    assert len(shop.versions) == 1
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    second = shop.versions[1]
    assert (second.parent, second.offsets) == ("000001", {0: 2 * CYCLE_EVENTS})
    assert second.verdict.promoted or second.verdict.reason.startswith(
        "champion kept: significantly worse on the newest events"
    )
    counted = {s.labels["phase"]: s.value for s in samples_of(shop.trainer, "trainer_phase_duration_seconds_count")}
    assert counted == dict.fromkeys(CYCLE_PHASES, 2)
    outcomes = {s.labels["outcome"]: s.value for s in samples_of(shop.trainer, "trainer_cycles_total")}
    assert (sum(outcomes.values()), outcomes["failed"]) == (2, 0)


def samples_of(trainer: Trainer, name: str) -> list[Sample]:
    """The samples of a metric that a trainer counts."""
    registry = CollectorRegistry()
    trainer.instruments.register(registry)
    return [s for family in registry.collect() for s in family.samples if s.name == f"anabranch_{name}"]


def test_a_command_gets_progress_replies_until_its_cycle_ends(shop, monkeypatch):
    monkeypatch.setattr(trainer, "REPORT_EVERY_S", 0.01)
    shop.crowd(120)
    shop.command()
    shop.run_due_cycle()
    statuses = [r.status for r in shop.topics.replies]
    assert statuses[0] == "started"
    assert statuses[-1] == "done"
    assert "progress" in statuses
    shares = [r.share for r in shop.topics.replies if r.status == "progress"]
    assert shares == sorted(shares)
    assert shop.topics.replies[-1].version == "000001"


def test_commands_during_a_cycle_are_answered_by_the_next_cycle(shop, monkeypatch):
    shop.crowd(200)
    real = trainer.learn

    async def two_cycles() -> None:
        loop = asyncio.get_running_loop()

        def slow(*args):
            for name in ("second", "third"):
                received = shop.trainer.on_command(encode(Command("retrain", name)))
                asyncio.run_coroutine_threadsafe(received, loop).result()
            monkeypatch.setattr(trainer, "learn", real)
            return real(*args)

        monkeypatch.setattr(trainer, "learn", slow)
        await shop.trainer.on_command(encode(Command("retrain", "first")))
        await shop.trainer.cycle_if_due()
        assert shop.topics.messages("waiting")[0].startswith("a cycle is running")
        ended = {r.id for r in shop.topics.replies if r.status in ("done", "kept")}
        assert ended == {"first"}
        await shop.trainer.cycle_if_due()

    asyncio.run(two_cycles())
    assert {r.id for r in shop.topics.replies if r.status in ("done", "kept")} == {"first", "second", "third"}
    assert len(shop.versions) == 2


def test_a_pinned_champion_is_trained_further_but_not_replaced(shop):
    for _ in range(2):
        shop.crowd(CYCLE_EVENTS)
        shop.run_due_cycle()
    served = shop.trainer.champion.pointers.champion
    pinned = pointer_to(shop.config, "000001", served, pinned=True)
    asyncio.run(shop.topics.send_and_wait("models", encode(pinned), b""))
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    assert shop.champion == "000001"
    last = shop.versions[-1]
    assert (last.verdict.promoted, last.verdict.outcome) == (False, "pinned")
    assert "version 000001 is pinned until `anabranch rollback --unpin`" in last.verdict.reason
    unpinned = msgspec.structs.replace(pinned, pinned=False, moved_ts=pinned.moved_ts + 1)
    asyncio.run(shop.topics.send_and_wait("models", encode(unpinned), b""))
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    assert shop.champion == "000004"


def test_a_pin_that_arrives_while_a_version_is_published_stays_in_force(shop, monkeypatch):
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    pinned = pointer_to(shop.config, "000001", shop.trainer.champion.pointers.champion, pinned=True)
    real = trainer.publish

    def crossed(*args):
        found = real(*args)
        # The operator's pointer reaches the topic before the trainer's. The trainer receives both afterwards.
        monkeypatch.setattr(shop.topics, "send_and_wait", both)
        return found

    async def both(topic: str, value: bytes, key: bytes) -> None:
        monkeypatch.undo()
        await shop.topics.send_and_wait("models", encode(pinned), b"")
        await shop.topics.send_and_wait(topic, value, key)

    monkeypatch.setattr(trainer, "publish", crossed)
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    assert shop.champion == "000001"
    # Sent again, so that compaction keeps the pin.
    assert (shop.topics.pointers[-1].version, shop.topics.pointers[-1].pinned) == ("000001", True)


def test_a_version_that_kafka_does_not_name_is_learned_again_and_no_traceback_is_logged(shop, monkeypatch, caplog):
    async def away(topic: str, value: bytes, key: bytes) -> None:
        raise RequestTimedOutError

    monkeypatch.setattr(shop.topics, "send_and_wait", away)
    shop.command()
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    assert shop.champion is None
    assert "pointer to the new version (RequestTimedOutError)" in status_file.read(shop.config.data).failure
    assert "pointer to the new version (RequestTimedOutError)" in caplog.text
    assert "Traceback" not in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr(shop.trainer.trigger, "due", lambda now: "the pause is over")
    shop.run_due_cycle()
    assert shop.champion == "000002"
    assert status_file.read(shop.config.data).failures == 0


def test_a_shadow_is_published_and_scored_but_not_served(shop):
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    shop.crowd(150)
    shop.command(shadow=True)
    shop.run_due_cycle()
    assert shop.champion == "000001"
    assert shop.trainer.champion.pointers.scored.version == "000002"
    assert shop.topics.replies[-1].status == "kept"
    assert "scored beside the champion, not served" in shop.versions[-1].verdict.reason
    assert shop.versions[-1].verdict.outcome == "shadow"


def test_a_shadow_that_the_gate_keeps_is_not_scored(shop, monkeypatch):
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    real = trainer.run_cycle
    kept = Verdict(False, "champion kept: the gate says so")
    monkeypatch.setattr(trainer, "run_cycle", lambda *a, **k: real(*a, **k)._replace(verdict=kept))
    shop.crowd(150)
    shop.command(shadow=True)
    shop.run_due_cycle()
    assert shop.trainer.champion.pointers.scored is None
    assert shop.versions[-1].verdict.outcome == "not_scored"


@pytest.mark.parametrize(
    ("place", "wrong", "error"),
    [
        ("learn", MemoryError(), "MemoryError"),
        ("learn", FloatingPointError("the training loss is nan"), "the training loss is nan"),
        ("learn", RuntimeError("can't allocate memory: you tried to allocate 9 bytes"), "can't allocate memory"),
        ("publish", ArtifactError("cannot write version 000002 to s3://away"), "cannot write version 000002"),
    ],
    ids=["memory", "nan", "torch memory", "artifacts away"],
)
def test_a_failed_cycle_changes_no_champion_and_the_next_cycle_continues_from_it(
    shop, monkeypatch, place, wrong, error
):
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()

    def fails(*_):
        raise wrong

    with monkeypatch.context() as patched:
        patched.setattr(trainer, place, fails)
        patched.setattr(trainer, "PUBLISH_AGAIN_S", (0.0,))
        shop.crowd(CYCLE_EVENTS)
        shop.command()
        shop.run_due_cycle()
    assert shop.champion == "000001"
    assert error in shop.topics.messages("failed")[0]
    kept = status_file.read(shop.config.data)
    assert error in kept.failure
    assert kept.failures == 1
    shop.run_due_cycle()  # too soon after a failure
    assert shop.champion == "000001"
    monkeypatch.setattr(trigger, "FIRST_PAUSE_S", 0.0)
    shop.trainer.trigger.failed(time.monotonic())
    shop.run_due_cycle()
    assert shop.versions[-1].offsets == {0: 2 * CYCLE_EVENTS}, "nothing more had to come"
    assert shop.versions[-1].parent == "000001"
    assert status_file.read(shop.config.data).failures == 0


@pytest.mark.parametrize("moment", ["learning", "published"])
def test_after_a_trainer_is_killed_in_a_cycle_another_trainer_continues(shop, monkeypatch, moment):
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    shop.crowd(CYCLE_EVENTS)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if moment == "learning":
            patched.setattr(trainer, "learn", killed)
        else:
            patched.setattr(champion, "pointer_to", killed)
        with contextlib.suppress(KeyboardInterrupt):
            shop.run_due_cycle()
    pointers = shop.trainer.champion.pointers
    assert pointers.champion.version == "000001"
    assert status_file.read(shop.config.data).doing == "not running"
    shop.start_trainer()
    asyncio.run(shop.trainer.follow(pointers))
    shop.run_due_cycle()  # what was not learned counts as new again
    assert shop.versions[-1].parent == "000001"
    assert shop.versions[-1].offsets == {0: 2 * CYCLE_EVENTS}
    assert shop.champion == shop.versions[-1].version


class Examples:
    """The topic `examples`, as a test has it."""

    def __init__(self) -> None:
        self.there: bool | Exception = True
        self.found = ["an example"]

    async def read(self) -> bool:
        if isinstance(self.there, Exception):
            raise self.there
        return self.there

    def examples(self) -> list[str]:
        return self.found


@pytest.mark.parametrize(
    ("there", "said"),
    [(True, ""), (False, "there is no topic 'examples' that we may see"), (BrokerUnavailable("away"), "away")],
)
def test_a_cycle_learns_from_the_examples_it_has_and_waits_for_no_others(shop, monkeypatch, caplog, there, said):
    shop.trainer.examples, given = Examples(), []
    shop.trainer.examples.there = there
    real_learn = trainer.learn

    def learn(*args):
        given.append(args[-1])
        return real_learn(*args[:-1])

    monkeypatch.setattr(trainer, "learn", learn)
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    assert given == [["an example"]]
    assert shop.champion == "000001"
    assert said in caplog.text


def test_without_a_ranker_no_examples_are_read(shop, monkeypatch):
    shop.restart_with(ranking=RankingSettings(ranker=False))
    shop.trainer.examples = Examples()
    shop.trainer.examples.there = AssertionError("it was read")
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    assert shop.champion == "000001"


def test_a_version_is_published_when_the_artifact_store_is_back_without_learning_again(shop, monkeypatch):
    shop.crowd(CYCLE_EVENTS)
    tries, learned, real_publish, real_learn = [], [], trainer.publish, trainer.learn

    def publish(*args):
        tries.append(args)
        if len(tries) < 3:
            raise ArtifactError("the artifact store s3://away fails: HTTP 500")
        return real_publish(*args)

    def learn(*args):
        learned.append(args)
        return real_learn(*args)

    monkeypatch.setattr(trainer, "publish", publish)
    monkeypatch.setattr(trainer, "learn", learn)
    monkeypatch.setattr(trainer, "PUBLISH_AGAIN_S", (0.0, 0.0))
    shop.run_due_cycle()
    assert (len(tries), len(learned)) == (3, 1)
    assert shop.champion == "000001"
    assert status_file.read(shop.config.data).failures == 0


def test_a_new_trainer_waits_while_the_champion_cannot_be_loaded(shop, monkeypatch):
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    pointers = shop.trainer.champion.pointers
    folder = Path(shop.config.artifacts_url)
    folder.rename(folder.with_name("away"))
    folder.write_text("no directory")
    shop.start_trainer()
    asyncio.run(shop.trainer.follow(pointers))
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    assert "the champion cannot be loaded" in status_file.read(shop.config.data).failure
    folder.unlink()
    folder.with_name("away").rename(folder)
    shop.command()
    shop.run_due_cycle()
    assert shop.versions[-1].parent == "000001"


def test_a_command_without_any_event_fails_with_the_reason(shop):
    shop.command()
    shop.run_due_cycle()
    assert shop.topics.messages("failed") == ["there is nothing to learn from: no events have arrived"]
    assert shop.versions == []


def test_the_events_of_one_user_alone_train_a_version_but_do_not_test_it(shop):
    for _ in range(2):
        shop.click(["ann"] * 150)
        shop.command()
        shop.run_due_cycle()
    assert shop.champion == "000002"
    assert "too few for a comparison" in shop.versions[-1].verdict.reason


def test_clock_jumps_change_neither_the_cycles_nor_the_champion(shop, monkeypatch):
    # These clicks are random: how a ranker does on sixty of them is chance, and would decide at the gate.
    shop.restart_with(ranking=RankingSettings(ranker=False))
    for number, jump_s in enumerate((0, 10_000_000, -20_000_000), 1):
        wall = time.time_ns() + jump_s * 10**9
        monkeypatch.setattr(time, "time_ns", lambda wall=wall: wall)
        shop.jumped_ms = jump_s * 1000
        shop.crowd(CYCLE_EVENTS)
        shop.run_due_cycle()
        monkeypatch.undo()
        shop.run_due_cycle()
        assert [v.offsets for v in shop.versions] == [{0: n * CYCLE_EVENTS} for n in range(1, number + 1)]
        assert shop.champion == shop.versions[-1].version == f"{number:06}"
    moved = [p.moved_ts for p in shop.topics.pointers]
    assert moved == sorted(set(moved)), "a pointer is later than the one before, whatever the clock says"


def test_a_bots_burst_starts_no_cycle_and_adds_few_training_events(shop, monkeypatch):
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    shop.click(["bot"] * 30_000)
    shop.run_due_cycle()
    assert len(shop.versions) == 1
    learned = watched(monkeypatch)
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    sequences = learned[0].sequences
    steps = np.diff(sequences.indptr)
    assert steps.max() <= STATE.sequence_events
    assert steps[sequences.users == hash_id("bot")] < 0.05 * steps.sum()
    assert shop.champion == "000002"


def watched(monkeypatch) -> list[CycleInput]:
    """What each cycle learns from."""
    learned = []
    real = trainer.run_cycle

    def run_cycle(champion, cycle_input, settings, **more):
        learned.append(cycle_input)
        return real(champion, cycle_input, settings, **more)

    monkeypatch.setattr(trainer, "run_cycle", run_cycle)
    return learned


def test_forgetting_is_measured_on_users_outside_the_cycle_with_the_gates_settings(shop, monkeypatch):
    shop.restart_with(gate=GateSettings(old_users=7, forgotten_share=0.5))
    shop.click([f"user-{n % 60}" for n in range(CYCLE_EVENTS)])
    shop.run_due_cycle()
    learned = watched(monkeypatch)
    shop.click([f"user-{n % 20}" for n in range(CYCLE_EVENTS)])
    shop.run_due_cycle()
    [cycle_input] = learned
    parts = (cycle_input.gate_users.users, cycle_input.sequences.users, hashed(20))
    gate_users, learned_from, with_new_events = (set(users.tolist()) for users in parts)
    assert len(gate_users) == 7
    assert gate_users | learned_from == set(hashed(60).tolist())
    assert not gate_users & learned_from
    assert with_new_events <= learned_from


def hashed(count: int) -> Ids:
    return hash_ids([f"user-{n}".encode() for n in range(count)])


def test_a_changed_encoder_is_trained_on_all_users_like_a_first_version(shop, monkeypatch):
    shop.click([f"user-{n % 60}" for n in range(CYCLE_EVENTS)])
    shop.run_due_cycle()
    pointers = shop.trainer.champion.pointers
    few = msgspec.structs.replace(shop.config.trainer, replay_users=4)
    model = msgspec.structs.replace(shop.config.model, sequence_encoder="bert4rec")
    shop.restart_with(gate=GateSettings(old_users=7), trainer=few, model=model)
    asyncio.run(shop.trainer.follow(pointers))
    learned = watched(monkeypatch)
    shop.click([f"user-{n % 20}" for n in range(CYCLE_EVENTS)])
    shop.run_due_cycle()
    [cycle_input] = learned
    assert len(cycle_input.gate_users.users) == 7
    learned_from = [*cycle_input.sequences.users.tolist(), *cycle_input.gate_users.users.tolist()]
    assert sorted(learned_from) == sorted(hashed(60).tolist())
    assert shop.versions[-1].model.sequence_encoder == "bert4rec"


def test_a_cycle_learns_only_the_newest_events_of_a_user_up_to_the_cap(shop, monkeypatch):
    shop.restart_with(trainer=msgspec.structs.replace(shop.config.trainer, user_events=5, min_events=20))
    learned = watched(monkeypatch)
    shop.click(["ann"] * 12 + ["bob"] * 3 + [f"user-{n}" for n in range(40)])
    shop.command()
    shop.run_due_cycle()
    sequences = learned[0].sequences
    row = {user: n for n, user in enumerate(sequences.users.tolist())}
    assert len(sequences.of(row[hash_id("bob")])) == 3
    whole = shop.store.sequences(np.array([hash_id("ann")], np.uint64)).of(0)
    assert sequences.of(row[hash_id("ann")])["ts"].tolist() == whole["ts"][-5:].tolist()


def test_drift_starts_a_cycle_before_the_event_threshold(shop, monkeypatch):
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    shop.crowd(CYCLE_EVENTS // 2)
    shop.run_due_cycle()
    assert len(shop.versions) == 1
    monkeypatch.setattr(shop.trainer.drift, "update", lambda *_: "people click otherwise")
    shop.run_due_cycle()
    assert len(shop.versions) == 2


def test_old_versions_are_pruned_but_not_the_champion_or_the_candidate(shop):
    shop.restart_with(trainer=msgspec.structs.replace(shop.config.trainer, keep_versions=1))
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    pinned = pointer_to(shop.config, "000001", shop.trainer.champion.pointers.champion, pinned=True)
    asyncio.run(shop.topics.send_and_wait("models", encode(pinned), b""))
    shop.crowd(CYCLE_EVENTS)
    shop.command(shadow=True)
    shop.run_due_cycle()
    assert shop.trainer.champion.pointers.scored.version == "000002"
    for _ in range(2):
        shop.crowd(CYCLE_EVENTS)
        shop.run_due_cycle()
    assert [v.version for v in shop.versions] == ["000001", "000002"]


def test_new_items_reuse_the_rows_of_items_that_left_the_graph(shop, monkeypatch):
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    before = shop.trainer.champion.version.trained.vocabulary
    left = np.setdiff1d(shop.trainer.view.all_items(), before.hashes[3:4])
    monkeypatch.setattr(type(shop.trainer.view), "all_items", lambda _: left)
    shop.crowd(CYCLE_EVENTS - 1)
    shop.click(["user-1"], ["brand-new"])
    shop.run_due_cycle()
    after = shop.trainer.champion.version.trained.vocabulary
    assert shop.champion == "000002"
    assert after.ids[3] == "brand-new"
    assert after.ids[:3] + after.ids[4:] == before.ids[:3] + before.ids[4:]


def test_no_item_counts_as_gone_while_the_state_is_behind_the_champion(shop):
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    served = shop.trainer.champion.version
    rebuilt = News({0: 10}, {0: 10})
    assert len(gone(shop.trainer.view, served, rebuilt)) == 0
    nothing = shop.trainer.view
    nothing.partitions.clear()
    assert len(gone(nothing, served, News({}, {0: CYCLE_EVENTS}))) == len(served.trained.vocabulary)


def test_learning_continues_from_the_champion_after_the_id_key_was_replaced(shop):
    shop.crowd(CYCLE_EVENTS)
    shop.run_due_cycle()
    before = shop.trainer.champion.version.trained
    pointers = shop.trainer.champion.pointers
    shop.replace_id_key()
    asyncio.run(shop.trainer.follow(pointers))
    shop.crowd(2 * CYCLE_EVENTS)
    shop.run_due_cycle()
    second = load(shop.config.artifacts_url, MODEL_NAME, "000002").trained
    assert (second.parent, second.vocabulary.ids) == ("000001", before.vocabulary.ids)
    ids = shop.trainer.view.ids
    assert ids.keyed
    assert second.vocabulary.hashes.tolist() == [ids.of(name) for name in before.vocabulary.ids]
    moved = (second.model.items.weight - before.model.items.weight).norm() / before.model.items.weight.norm()
    assert moved < 0.5, "it began from the champion's items, not from random ones"
