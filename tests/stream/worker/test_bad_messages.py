"""No message of any topic keeps another user waiting: a click behind it is answered in the same round of work.

The broker here takes at most 100 kB. A pause for a retry would last a million seconds.
"""

import asyncio
import json
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state.titles import Titles
from stream.config import Config
from stream.kafka.messages import encode
from stream.kafka.pointers import decode_pointer
from stream.stores.checkpoints import Checkpoints
from stream.worker import outbox
from stream.worker.operator_commands import OperatorCommands
from stream.worker.recommender import Recommender
from stream.worker.title_reader import read_titles
from stream.worker.version_follower import VersionFollower
from tests.stream.fakes import CLICKS, REQUESTS, until
from tests.stream.kafka.test_decode import BROKER_TIME, Record
from tests.stream.worker.test_pipeline import Shop
from tests.stream.worker.test_title_reader import Reader

MAX_BYTES = 100_000
FIELDS = (
    "user", "item", "ts", "event", "id", "title", "command", "version", "shadow", "sent_ts", "expires_ts", "name",
    "url", "sha256", "moved_ts", "role", "by", "pinned",
)  # fmt: skip

long_texts = st.builds(
    lambda char, length: char * length,
    st.sampled_from(["x", "é", "\x00", "\u202e", "\ud800", "🛒", '"']),
    st.sampled_from([0, 1, 512, 513, 5_000, 120_000]),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(-(2**70), 2**70), st.sampled_from([10**400, -1, 0]),
    st.sampled_from(["ann", "milk", "pause", "resume", "copy", "swap", "forget", "undo", "hide", "champion", "7"]),
    st.text(max_size=20), long_texts,
)  # fmt: skip
documents = st.dictionaries(
    st.sampled_from(FIELDS), st.one_of(scalars, st.lists(scalars, max_size=2), st.dictionaries(st.text(), scalars))
)
values = st.one_of(
    st.none(),
    st.binary(max_size=50),
    st.sampled_from([b"", b"[" * 5000, b"{}" * 60_000, b"\xff" * 200_000, b'{"user": 1' + b"0" * 5000 + b"}"]),
    st.builds(lambda document: json.dumps(document).encode(), documents),
    st.builds(lambda document: json.dumps(document, ensure_ascii=False).encode(errors="surrogatepass"), documents),
)
keys = st.one_of(st.none(), st.binary(max_size=5), st.sampled_from([b"", b"ann", b"k" * 150_000]))
topics = st.sampled_from(["clicks", "requests", "items", "models", "commands"])
messages = st.lists(st.tuples(topics, keys, values), min_size=1, max_size=6)


class Worker(Shop):
    """A shop that reads all topics."""

    def __init__(self, config: Config, monkeypatch) -> None:
        super().__init__(config, monkeypatch)
        monkeypatch.setattr(outbox, "SEND_AGAIN_S", 1e6)
        self.producer.max_bytes = MAX_BYTES
        self.titles = Titles(config.data)
        self.recommender.names = Recommender(config, self.assignment.stores, self.titles).names
        checkpoints = Checkpoints(config, self.assignment, self.lease)
        self.commands = OperatorCommands(config, self.assignment, checkpoints)
        self.versions = VersionFollower(config, self.recommender.versions, self.assignment)
        self.rounds = 0

    async def receive(self, hostile: list[tuple[str, bytes | None, bytes | None]]) -> None:
        """Let the worker receive these, with a click of another user behind those in `clicks`, and answer."""
        self.rounds += 1
        bob = f"bob-{self.rounds}"
        records: dict[str, list[Record]] = {"clicks": [], "requests": [], "items": [], "models": [], "commands": []}
        for topic, key, value in hostile:
            records[topic].append(Record(value, 0, key))
        await self._apply_others(records)
        self.assignment.pause(False)  # a hostile `pause` is a command like any other
        self.producer.sent.clear()
        clicks = [*records["clicks"], Record(json.dumps({"user": bob, "item": "milk"}).encode())]
        first = self.store.progress.next_offset
        for at, record in enumerate(clicks):
            record.offset = first + at
        await self.poll({CLICKS: clicks} | ({REQUESTS: records["requests"]} if records["requests"] else {}))
        assert self.store.progress.next_offset == first + len(clicks), "one poll applies them all"
        answering = self.start(self.pipeline.answer())
        await until(lambda: answering.done() or self.store.answered() == self.store.progress.next_offset)
        answering.cancel()
        assert bob.encode() in dict(self.recommendations())
        dead, replies = (len(self.producer.to(topic)) for topic in ("dead-letters", "replies"))
        assert dead + replies >= len(records["requests"]), "each request is answered or a dead letter"

    async def _apply_others(self, records: dict[str, list[Record]]) -> None:
        titles = [SimpleNamespace(value=r.value, key=r.key, offset=at) for at, r in enumerate(records["items"])]
        await read_titles(Reader(*([titles] if titles else [])), "items", "id", self.titles, self.recommender.names)
        for record in records["models"]:
            await self.versions.on_pointer(decode_pointer(record.value))
        for record in records["commands"]:
            if (reply := await self.commands.on_command(record.value)) is not None:
                assert len(encode(reply)) < MAX_BYTES
                reply.id.encode()


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """A worker with a user and an item, and the loop that it runs in."""
    loop, patches = asyncio.new_event_loop(), pytest.MonkeyPatch()
    made = Worker(Config(data=tmp_path_factory.mktemp("worker")), patches)

    async def begin() -> None:
        await made.assign()
        made.apply({"user": "ann", "ts": BROKER_TIME}, {"user": "ann", "item": "bread", "ts": BROKER_TIME})

    loop.run_until_complete(begin())
    yield lambda hostile: loop.run_until_complete(asyncio.wait_for(made.receive(hostile), 30))
    loop.run_until_complete(made.close())
    made.titles.close()
    loop.close()
    patches.undo()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages)
def test_a_click_behind_any_messages_is_answered_in_the_same_round(worker, hostile):
    worker(hostile)


POISON = {
    "a title that makes answers too large": ("items", b"milk", {"item": "milk", "title": "M" * 600_000}),
    "a request whose reply would be too large": ("requests", b"ann", {"user": "ann", "id": "x" * 200_000}),
    "a request of a long user": ("requests", b"ann", {"user": "u" * 200_000}),
    "a click that is too large for the dead letters": ("clicks", b"k" * 150_000, {"user": "u" * 200_000}),
    "a command with a long id": ("commands", None, {"command": "pause", "id": "x" * 200_000}),
    "a command that is not UTF-8": ("commands", None, {"command": "pause", "id": "\ud800"}),
}


@pytest.mark.parametrize("what", POISON)
def test_a_poison_message_keeps_nobody_waiting(worker, what):
    topic, key, document = POISON[what]
    worker([(topic, key, json.dumps(document).encode())])


def test_a_record_with_neither_key_nor_value_keeps_nobody_waiting(worker):
    worker([(topic, None, None) for topic in ("clicks", "requests", "items", "models", "commands")])
