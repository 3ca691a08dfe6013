"""An installation as a test describes it: its members, the workers' answers, a broker that is there or away."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from model.learning.gate import Change, Verdict
from model.learning.manifests import Manifest
from model.ranking.fusion import Fusion
from model.settings import ModelSettings
from stream.config import Config, ServeSettings
from stream.console.broker_watch import BrokerWatch
from stream.kafka.ask import Everywhere
from stream.kafka.documents import Document, ItemPart, Step, TitledFollower, UserReport
from stream.kafka.messages import Pointer, Recommended, Reply, Request
from stream.kafka.pointers import Pointers
from stream.members.member import Member, PartitionState, ScoreState, TrainerState
from stream.members.sightings import Doing, SeenMember
from stream.times import now_ms

OPERATE, READ = "operate-" + "o" * 16, "read-" + "r" * 16
EVIL = "<script>alert(1)</script>\"'&"
TURNED = "a\u202eb\x1b[31m"
"""Text that would turn a line round, and colour a terminal."""


class Seen(SeenMember, frozen=True):
    """A member as a follower of the topic sees it."""

    doing: Doing = "running"
    seen_s: float = 0.4


def worker(instance: str = "0", partitions: tuple[int, ...] = (0, 1), **more: Any) -> Member:
    states = {
        number: PartitionState(
            phase="answering", next_offset=41_000 + number, log_end=41_024, lag_ms=380, pending=2,
            counts={"applied": 41_000, "dead": 3},
        )
        for number in partitions
    }  # fmt: skip
    scores = {
        "model": ScoreState(51_463, 3900.0, 2093.0, 0.0868, 0.0471),
        "popularity": ScoreState(51_463, 2454.0, 1379.0, 0.0561, 0.0312),
        "own": ScoreState(51_463, 2084.0, 1116.0, 0.0573, 0.0301),
        "transitions": ScoreState(51_463, 2881.0, 1852.0, 0.0652, 0.0389),
    }
    given: dict[str, Any] = {"version": "000004", "partitions": states, "scores": scores}
    return member("worker", instance, **given | more)


def trainer(instance: str = "0", **more: Any) -> Member:
    return member("trainer", instance, **{"trainer": TrainerState(events=1_204, since_ts=now_ms())} | more)


def member(kind: Any, instance: str, **more: Any) -> Member:
    now = now_ms()
    given = {"host": "shop-1", "pid": 4711, "software": "0.1.0", "started_ts": now - 3_600_000, "ts": now}
    return Member(kind=kind, instance=instance, **given | more)


class FakeMembers:
    """What a test sets."""

    def __init__(self, *seen: Seen) -> None:
        self.seen = list(seen)
        self.problem = ""

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def members(self) -> list[Seen]:
        return self.seen


class FakeRequests:
    """Workers that answer what a test sets: a document, a reply, an error to raise, or seconds to wait."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.answers: dict[str, Any] = {"recommendation": reply(), "user": user_report(), "item": item_part()}
        self.answer: Callable[[Request], Any] = lambda request: self.answers[request.want]
        self.missing: dict[int, str] = {}
        """Partitions that do not answer what all are asked, and why."""

    async def ask(self, request: Request, timeout_s: float) -> Any:
        found = await self._found(request)
        return (
            Document(id=1, want="user", partition=0, emitted_ts=now_ms(), user=found)
            if request.want == "user"
            else found
        )

    async def ask_all(self, request: Request, timeout_s: float) -> Everywhere:
        found = await self._found(request)
        document = Document(id=1, want="item", partition=0, emitted_ts=now_ms(), item=found)
        return Everywhere({0: document}, self.missing)

    async def _found(self, request: Request) -> Any:
        self.asked.append(request)
        found = self.answer(request)
        if isinstance(found, float):
            await asyncio.sleep(found)
        if isinstance(found, Exception):
            raise found
        return found


class FakeBroker(BrokerWatch):
    """A broker that answers, until a test says otherwise."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.answers, self.since_ts, self.ends = True, now_ms() - 60_000, {0: 41_024, 1: 41_024}

    async def run(self) -> None:
        await asyncio.Event().wait()


def config(data: Path, **serve: Any) -> Config:
    given: dict[str, Any] = {"http": "127.0.0.1:0", "operate_token": OPERATE}
    return Config(broker="127.0.0.1:1", data=data, serve=ServeSettings(**given | serve))


def pointers(version: str = "000004", *, pinned: bool = False, candidate: str = "") -> Pointers:
    def pointer(name: str, **more: Any) -> Pointer:
        return Pointer("create", name, "somewhere", "0" * 64, now_ms() - 180_000, **more)

    return Pointers(pointer(version, pinned=pinned), pointer(candidate, role="candidate") if candidate else None)


def publish_versions(config: Config, count: int = 4, reason: str = "promoted: not significantly worse") -> None:
    """Manifests in the artifact store, without the files that only a worker reads."""
    for n in range(1, count + 1):
        kept = n == 3
        change = Change(
            -0.31 if kept else 0.04 * n - 0.06, -0.52 if kept else -0.11, -0.08 if kept else 0.04 * n + 0.09
        )
        manifest = Manifest(
            name="create", version=f"{n:06d}", parent=f"{n - 1:06d}" if n > 1 else None,
            created_ts=now_ms() - (count - n) * 300_000, offsets={0: 1000 * n, 1: 1000 * n},
            metrics={"ndcg@10": 0.035 + 0.004 * n, "champion_ndcg@10": 0.036, "users": 1500.0, "epochs": 6.0,
                     "train_s": 18.2, "last_s": 6.1},
            fusion=Fusion(), model=ModelSettings(), sha256={},
            verdict=Verdict(not kept, reason, change=None if n == 1 else change),
        )  # fmt: skip
        folder = config.data / "models" / "create" / manifest.version
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))


NEWEST_TS = 1_795_800_000_000

TITLES = [
    "Macaroni & Cheese Dnrs (Private) 12 OZ", "Potato Chips (National) 8 OZ", "Enhanced (National)",
    "Strawberries (National) 16 OZ", "Fluid Milk White Only (Private) 1 GA", "Hamburger Buns (Private) 12 OZ",
    "Bananas (National) 40 LB", "Ice Cream & Milk Desserts (National) 56 OZ", "Kids Cereal (National) 15 OZ",
    "Shredded Cheese (Private) 8 OZ",
]  # fmt: skip


def reply(**more: Any) -> Reply:
    items = [
        Recommended(str(1029624 + 71 * n), 1.3177 - 0.09 * n, ["995242", "826249"][: 1 + n % 2], title)
        for n, title in enumerate(TITLES)
    ]
    given = {
        "user": "alice", "items": items, "model": "000004", "model_age_s": 154.6, "source": "model",
        "event_ts": now_ms(), "emitted_ts": now_ms(), "partition": 1, "offset": 41_001,
    }  # fmt: skip
    return Reply(**given | more)


def user_report(**more: Any) -> UserReport:
    steps = [Step(str(826249 + 13 * n), now_ms() - (40 - n) * 3_600_000, "purchase") for n in range(24)]
    given = {"user": "alice", "sequence": steps, "recommended": reply(), "partitions": [1]}
    return UserReport(**given | more)


def item_part(**more: Any) -> ItemPart:
    followers = [TitledFollower(str(1029624 + 71 * n), title, 41.5 / (n + 1)) for n, title in enumerate(TITLES)]
    given = {
        "item": "826249", "title": "Hamburger Buns (Private) 12 OZ", "degree": 1_204, "popularity": 81.4331,
        "next": followers, "known_to_model": True, "withdrawn": False, "ts": NEWEST_TS,
    }  # fmt: skip
    return ItemPart(**given | more)
