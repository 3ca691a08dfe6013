"""The trainer's cycles, and that whatever becomes of one the champion serves and the next goes on where it stopped."""

import asyncio
import contextlib
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from model.errors import ArtifactError
from model.learning.gate import Verdict
from model.learning.versions import list_versions
from model.settings import GateSettings, ModelSettings, TrainingSettings
from state.events import Ids, hash_id, hash_ids, make_batch
from state.identity import Identity
from state.sequences import Sequences
from state.settings import StateSettings
from state.store import Store
from stream.config import Config, TrainerSettings
from stream.kafka.messages import Command, CommandReply, Pointer, encode
from stream.kafka.pointers import MODEL_NAME, pointer_to
from stream.trainer import status_file as health
from stream.trainer import trainer, trigger
from stream.trainer import training_data as cycle
from stream.trainer.trainer import Trainer
from stream.trainer.training_data import News, gone

STATE = StateSettings(neighbours_per_item=4, sequence_events=20)
EVERY = 400


class Topics:
    """A producer whose pointers come back to the trainer as the topic would bring them."""

    def __init__(self) -> None:
        self.pointers: list[Pointer] = []
        self.replies: list[CommandReply] = []
        self.trainer: Trainer | None = None

    async def send_and_wait(self, topic: str, value: bytes, key: bytes) -> None:
        if topic == "models":
            pointer = msgspec.json.decode(value, type=Pointer)
            self.pointers.append(pointer)
            await self.trainer._hear_pointer(pointer)
        else:
            self.replies.append(msgspec.json.decode(value, type=CommandReply))

    def said(self, status: str) -> list[str]:
        return [r.message for r in self.replies if r.status == status]


class Shop:
    """A store that events are written to, and the trainer beside it."""

    def __init__(self, data: Path) -> None:
        self.config = Config(
            data=data,
            state=STATE,
            model=ModelSettings(dim=8),
            training=TrainingSettings(warm_up_epochs=1, epochs=1, last_epochs=1, negatives=8, holdout_events=60),
            trainer=TrainerSettings(every_events=EVERY, min_events=100, every_s=3600.0),
        )
        self.store = Store(data / "clicks-0", Identity("cluster", "clicks", 0, 1, 20, 4), STATE)
        self.draw = np.random.default_rng(0)
        self.jumped_ms = 0
        self.topics = Topics()
        self.begin()

    def begin(self) -> None:
        """Another trainer process."""
        self.trainer = self.topics.trainer = Trainer(self.config)
        self.trainer._producer = self.topics

    def having(self, **changed) -> None:
        """Other settings, from another trainer process on."""
        self.config = msgspec.structs.replace(self.config, **changed)
        self.begin()

    def click(self, users: list[str], items: list[str] | None = None) -> None:
        items = items or [f"item-{n}" for n in self.draw.integers(0, 30, len(users))]
        start = self.store.progress.next_offset
        offset = start + np.arange(len(users))
        ts = 1_600_000_000_000 + 1000 * offset + self.jumped_ms
        batch = make_batch([u.encode() for u in users], [i.encode() for i in items], ts=ts, offset=offset)
        self.store.apply(batch, start + len(users))

    def crowd(self, count: int) -> None:
        self.click([f"user-{n}" for n in self.draw.integers(0, 80, count)])

    def turn(self) -> None:
        """The trainer looks, and learns if it should."""
        asyncio.run(self.trainer._cycle_if_due())

    def command(self, **more) -> None:
        asyncio.run(self.trainer._hear(encode(Command("retrain", f"id-{len(self.topics.replies)}", **more))))

    @property
    def champion(self) -> str | None:
        served = self.trainer._pointers.champion
        return served.version if served else None

    @property
    def versions(self) -> list:
        return list_versions(self.config.artifacts_url, MODEL_NAME)


@pytest.fixture
def shop(tmp_path):
    made = Shop(tmp_path)
    yield made
    made.store.close()


def test_a_cycle_comes_with_enough_events_and_not_before(shop):
    shop.crowd(EVERY - 1)
    shop.turn()
    assert shop.versions == []
    shop.crowd(1)
    shop.turn()
    assert shop.champion == "000001"
    assert shop.versions[0].offsets == {0: EVERY}
    assert shop.versions[0].verdict == Verdict(True, "promoted: the first version")
    shop.turn()
    assert len(shop.versions) == 1
    shop.crowd(EVERY)
    shop.turn()
    second = shop.versions[1]
    assert (second.parent, second.offsets) == ("000001", {0: 2 * EVERY})
    assert second.verdict.promoted or second.verdict.reason.startswith("champion kept: worse on what came last")


def test_a_command_is_followed_from_its_beginning_to_its_end(shop, monkeypatch):
    monkeypatch.setattr(trainer, "LOOK_EVERY_S", 0.01)
    shop.crowd(120)
    shop.command()
    shop.turn()
    statuses = [r.status for r in shop.topics.replies]
    assert statuses[0] == "started"
    assert statuses[-1] == "done"
    assert "progress" in statuses
    shares = [r.share for r in shop.topics.replies if r.status == "progress"]
    assert shares == sorted(shares)
    assert shop.topics.replies[-1].version == "000001"


def test_a_second_command_waits_and_says_so_and_one_cycle_answers_all_that_wait(shop, monkeypatch):
    shop.crowd(200)
    real = trainer.candidate

    async def turns() -> None:
        loop = asyncio.get_running_loop()

        def slow(*args):
            for name in ("second", "third"):
                heard = shop.trainer._hear(encode(Command("retrain", name)))
                asyncio.run_coroutine_threadsafe(heard, loop).result()
            monkeypatch.setattr(trainer, "candidate", real)
            return real(*args)

        monkeypatch.setattr(trainer, "candidate", slow)
        await shop.trainer._hear(encode(Command("retrain", "first")))
        await shop.trainer._cycle_if_due()
        assert shop.topics.said("waiting")[0].startswith("a cycle is under way")
        ended = {r.id for r in shop.topics.replies if r.status in ("done", "kept")}
        assert ended == {"first"}
        await shop.trainer._cycle_if_due()

    asyncio.run(turns())
    assert {r.id for r in shop.topics.replies if r.status in ("done", "kept")} == {"first", "second", "third"}
    assert len(shop.versions) == 2


def test_a_pinned_champion_is_learned_on_from_but_not_replaced(shop):
    for _ in range(2):
        shop.crowd(EVERY)
        shop.turn()
    served = shop.trainer._pointers.champion
    pinned = pointer_to(shop.config, "000001", served, pinned=True)
    asyncio.run(shop.topics.send_and_wait("models", encode(pinned), b""))
    shop.crowd(EVERY)
    shop.turn()
    assert shop.champion == "000001"
    last = shop.versions[-1]
    assert not last.verdict.promoted
    assert "version 000001 is pinned until `anabranch rollback --unpin`" in last.verdict.reason
    unpinned = msgspec.structs.replace(pinned, pinned=False, moved_ts=pinned.moved_ts + 1)
    asyncio.run(shop.topics.send_and_wait("models", encode(unpinned), b""))
    shop.crowd(EVERY)
    shop.turn()
    assert shop.champion == "000004"


def test_a_pin_set_while_a_version_is_being_published_holds(shop, monkeypatch):
    shop.crowd(EVERY)
    shop.turn()
    pinned = pointer_to(shop.config, "000001", shop.trainer._pointers.champion, pinned=True)
    real = trainer.publish

    def crossed(*args):
        found = real(*args)
        # The operator's word reaches the topic before ours, the trainer hears both afterwards.
        monkeypatch.setattr(shop.topics, "send_and_wait", both)
        return found

    async def both(topic: str, value: bytes, key: bytes) -> None:
        monkeypatch.undo()
        await shop.topics.send_and_wait("models", encode(pinned), b"")
        await shop.topics.send_and_wait(topic, value, key)

    monkeypatch.setattr(trainer, "publish", crossed)
    shop.crowd(EVERY)
    shop.turn()
    assert shop.champion == "000001"
    # Said again, so that it is the last word in a compacted topic too.
    assert (shop.topics.pointers[-1].version, shop.topics.pointers[-1].pinned) == ("000001", True)


def test_a_shadow_is_published_and_scored_but_not_served(shop):
    shop.crowd(EVERY)
    shop.turn()
    shop.crowd(150)
    shop.command(shadow=True)
    shop.turn()
    assert shop.champion == "000001"
    assert shop.trainer._pointers.scored.version == "000002"
    assert shop.topics.replies[-1].status == "kept"
    assert "scored beside the champion, not served" in shop.versions[-1].verdict.reason


@pytest.mark.parametrize(
    ("place", "wrong", "said"),
    [
        ("candidate", MemoryError(), "MemoryError"),
        ("candidate", FloatingPointError("the training loss is nan"), "the training loss is nan"),
        ("candidate", RuntimeError("can't allocate memory: you tried to allocate 9 bytes"), "can't allocate memory"),
        ("publish", ArtifactError("cannot write version 000002 to s3://away"), "cannot write version 000002"),
    ],
    ids=["memory", "nan", "torch memory", "artifacts away"],
)
def test_what_goes_wrong_in_a_cycle_leaves_the_champion_and_the_next_goes_on_from_it(
    shop, monkeypatch, place, wrong, said
):
    shop.crowd(EVERY)
    shop.turn()

    def fails(*_):
        raise wrong

    with monkeypatch.context() as patched:
        patched.setattr(trainer, place, fails)
        shop.crowd(EVERY)
        shop.command()
        shop.turn()
    assert shop.champion == "000001"
    assert said in shop.topics.said("failed")[0]
    kept = health.read(shop.config.data)
    assert said in kept.failure
    assert kept.failures == 1
    shop.turn()  # too soon after a failure
    assert shop.champion == "000001"
    monkeypatch.setattr(trigger, "FIRST_PAUSE_S", 0.0)
    shop.trainer._trigger.failed(time.monotonic())
    shop.turn()
    assert shop.versions[-1].offsets == {0: 2 * EVERY}, "nothing more had to come"
    assert shop.versions[-1].parent == "000001"
    assert health.read(shop.config.data).failures == 0


@pytest.mark.parametrize("moment", ["learning", "published"])
def test_a_trainer_killed_in_a_cycle_leaves_nothing_that_another_could_not_go_on_from(shop, monkeypatch, moment):
    shop.crowd(EVERY)
    shop.turn()
    shop.crowd(EVERY)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if moment == "learning":
            patched.setattr(trainer, "candidate", killed)
        else:
            patched.setattr(trainer, "pointer_to", killed)
        with contextlib.suppress(KeyboardInterrupt):
            shop.turn()
    pointers = shop.trainer._pointers
    assert pointers.champion.version == "000001"
    assert health.read(shop.config.data).doing == "not running"
    shop.begin()
    asyncio.run(shop.trainer._follow(pointers))
    shop.turn()  # what was not learned counts as new again
    assert shop.versions[-1].parent == "000001"
    assert shop.versions[-1].offsets == {0: 2 * EVERY}
    assert shop.champion == shop.versions[-1].version


def test_without_its_artifacts_a_new_trainer_waits_rather_than_forget(shop, monkeypatch):
    shop.crowd(EVERY)
    shop.turn()
    pointers = shop.trainer._pointers
    folder = Path(shop.config.artifacts_url)
    folder.rename(folder.with_name("away"))
    folder.write_text("no directory")
    shop.begin()
    asyncio.run(shop.trainer._follow(pointers))
    shop.crowd(EVERY)
    shop.turn()
    assert "the champion cannot be loaded" in health.read(shop.config.data).failure
    folder.unlink()
    folder.with_name("away").rename(folder)
    shop.command()
    shop.turn()
    assert shop.versions[-1].parent == "000001"


def test_fed_nothing_it_says_so(shop):
    shop.command()
    shop.turn()
    assert shop.topics.said("failed") == ["nothing has been learned from yet: no events have arrived"]
    assert shop.versions == []


def test_fed_one_user_only_it_still_learns_and_decides_nothing_by_that_user(shop):
    for _ in range(2):
        shop.click(["ann"] * 150)
        shop.command()
        shop.turn()
    assert shop.champion == "000002"
    assert "too few to tell it from the champion" in shop.versions[-1].verdict.reason


def test_clocks_that_jump_change_neither_when_it_learns_nor_who_serves(shop, monkeypatch):
    for number, jump_s in enumerate((0, 10_000_000, -20_000_000), 1):
        wall = time.time_ns() + jump_s * 10**9
        monkeypatch.setattr(time, "time_ns", lambda wall=wall: wall)
        shop.jumped_ms = jump_s * 1000
        shop.crowd(EVERY)
        shop.turn()
        monkeypatch.undo()
        shop.turn()
        assert [v.offsets for v in shop.versions] == [{0: n * EVERY} for n in range(1, number + 1)]
        assert shop.champion == shop.versions[-1].version == f"{number:06}"
    moved = [p.moved_ts for p in shop.topics.pointers]
    assert moved == sorted(set(moved)), "a pointer is later than the one before, whatever the clock says"


def test_a_bots_burst_is_no_reason_to_learn_and_little_to_learn_from(shop, monkeypatch):
    shop.crowd(EVERY)
    shop.turn()
    shop.click(["bot"] * 30_000)
    shop.turn()
    assert len(shop.versions) == 1
    learned = watched(monkeypatch)
    shop.crowd(EVERY)
    shop.turn()
    [(sequences, _)] = learned
    steps = np.diff(sequences.indptr)
    assert steps.max() <= STATE.sequence_events
    assert steps[sequences.users == hash_id("bot")] < 0.05 * steps.sum()
    assert shop.champion == "000002"


def watched(monkeypatch) -> list[tuple[Sequences, dict]]:
    """What each cycle is to learn."""
    learned = []
    real = cycle.learn

    def learn(champion, parent, sequences, *args, **more):
        learned.append((sequences, more))
        return real(champion, parent, sequences, *args, **more)

    monkeypatch.setattr(cycle, "learn", learn)
    return learned


def test_forgetting_is_tested_on_users_who_take_no_part_by_the_gates_own_settings(shop, monkeypatch):
    shop.having(gate=GateSettings(old_users=7, forgotten_share=0.5))
    shop.click([f"user-{n % 60}" for n in range(EVERY)])
    shop.turn()
    learned = watched(monkeypatch)
    shop.click([f"user-{n % 20}" for n in range(EVERY)])
    shop.turn()
    [(sequences, more)] = learned
    of_old, taking_part, fresh = (set(users.tolist()) for users in (more["old"].users, sequences.users, hashed(20)))
    assert len(of_old) == 7
    assert of_old | taking_part == set(hashed(60).tolist())
    assert not of_old & taking_part
    assert fresh <= taking_part
    assert more["gate"] == shop.config.gate


def hashed(count: int) -> Ids:
    return hash_ids([f"user-{n}".encode() for n in range(count)])


def test_of_a_user_no_more_events_are_learned_than_the_cap_and_the_newest(shop, monkeypatch):
    shop.having(trainer=msgspec.structs.replace(shop.config.trainer, user_events=5, min_events=20))
    learned = watched(monkeypatch)
    shop.click(["ann"] * 12 + ["bob"] * 3 + [f"user-{n}" for n in range(40)])
    shop.command()
    shop.turn()
    [(sequences, _)] = learned
    row = {user: n for n, user in enumerate(sequences.users.tolist())}
    assert len(sequences.of(row[hash_id("bob")])) == 3
    whole = shop.store.sequences(np.array([hash_id("ann")], np.uint64)).of(0)
    assert sequences.of(row[hash_id("ann")])["ts"].tolist() == whole["ts"][-5:].tolist()


def test_drift_calls_a_cycle_before_there_are_events_enough(shop, monkeypatch):
    shop.crowd(EVERY)
    shop.turn()
    shop.crowd(EVERY // 2)
    shop.turn()
    assert len(shop.versions) == 1
    monkeypatch.setattr(shop.trainer._drift, "look", lambda *_: "people click otherwise")
    shop.turn()
    assert len(shop.versions) == 2


def test_old_versions_go_but_neither_who_serves_nor_who_is_scored(shop):
    shop.having(trainer=msgspec.structs.replace(shop.config.trainer, keep_versions=1))
    shop.crowd(EVERY)
    shop.turn()
    pinned = pointer_to(shop.config, "000001", shop.trainer._pointers.champion, pinned=True)
    asyncio.run(shop.topics.send_and_wait("models", encode(pinned), b""))
    shop.crowd(EVERY)
    shop.command(shadow=True)
    shop.turn()
    assert shop.trainer._pointers.scored.version == "000002"
    for _ in range(2):
        shop.crowd(EVERY)
        shop.turn()
    assert [v.version for v in shop.versions] == ["000001", "000002"]


def test_items_that_no_graph_has_any_more_give_their_rows_to_new_ones(shop, monkeypatch):
    shop.crowd(EVERY)
    shop.turn()
    before = shop.trainer._champion.trained.vocabulary
    left = np.setdiff1d(shop.trainer._view.all_items(), before.hashes[3:4])
    monkeypatch.setattr(type(shop.trainer._view), "all_items", lambda _: left)
    shop.crowd(EVERY - 1)
    shop.click(["user-1"], ["brand-new"])
    shop.turn()
    after = shop.trainer._champion.trained.vocabulary
    assert shop.champion == "000002"
    assert after.ids[3] == "brand-new"
    assert after.ids[:3] + after.ids[4:] == before.ids[:3] + before.ids[4:]


def test_while_the_state_is_behind_the_champion_nothing_counts_as_gone(shop):
    shop.crowd(EVERY)
    shop.turn()
    champion = shop.trainer._champion
    rebuilt = News({0: 10}, {0: 10})
    assert len(gone(shop.trainer._view, champion, rebuilt)) == 0
    nothing = shop.trainer._view
    nothing.partitions.clear()
    assert len(gone(nothing, champion, News({}, {0: EVERY}))) == len(champion.trained.vocabulary)
