"""The rankers of champion and candidate, moved by the examples of this worker between two versions.

A version's ranker has learned what the trainer had read of the topic. The worker goes on with the examples that it
makes itself, in a thread and on a copy: a ranking reads the present ranker or the next one, never a half of each. A
new version first learns once more what this worker has seen after that version's newest example.
"""

import asyncio
import copy
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from model.ranker.examples import Example, Ring
from stream.config import Config
from stream.worker import ranker_file
from stream.worker.ranker_file import ROLES, Role

if TYPE_CHECKING:
    from model.ranker.learning import LearningRanker
    from model.ranking.stages import Stages

log = logging.getLogger("anabranch.examples")

MAX_BEHIND = 1_024
"""Examples that wait for a step of the ranker. Beyond them the oldest are not learned online."""
STORE_EVERY_S = 10.0


class OnlineRanker:
    """The ranker of one version."""

    def __init__(self, version: str, stages: "Stages", learning: "LearningRanker") -> None:
        from model.ranker.learning import NEW_EXAMPLES

        self.version, self._stages, self._learning, self._step = version, stages, learning, NEW_EXAMPLES
        self._waiting: deque[Example] = deque(maxlen=MAX_BEHIND)
        self._forgotten: list[int] = []
        self._learns = threading.Lock()

    @property
    def due(self) -> bool:
        """Whether there are enough examples for a step."""
        return len(self._waiting) >= self._step

    def add(self, examples: Iterable[Example]) -> None:
        """Examples for the next steps."""
        self._waiting.extend(examples)

    def forget(self, users: Sequence[int]) -> None:
        """Drop the examples of these users; while a step is taken, after it."""
        self._waiting = deque((e for e in self._waiting if e.user not in users), maxlen=MAX_BEHIND)
        self._forgotten += users
        if self._learns.acquire(blocking=False):
            self._forget()
            self._learns.release()

    async def learn(self) -> None:
        """Learn as many examples as one step takes, in a thread, and rank with the result from then on."""
        taken = [self._waiting.popleft() for _ in range(self._step)]
        await asyncio.to_thread(self._learn, taken)

    def store(self, config: Config, role: Role) -> None:
        """Write the present ranker for a restart."""
        if self._stages.ranker is not None:
            ranker_file.write(config.data, config.worker.instance, role, self.version, self._stages.ranker)

    def _learn(self, examples: Sequence[Example]) -> None:
        from model.ranker.learning import copied

        with self._learns:
            self._learning.add(examples)
            self._forget()
            self._stages.ranker = copied(self._learning.ranker)

    def _forget(self) -> None:
        for user in self._forgotten:
            self._learning.forget(user)
        self._forgotten = []


class OnlineRankers:
    """The rankers of the versions that one worker serves and scores."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._seen: Ring | None = None
        """The newest examples of this worker, some 30 MB, for versions to come; each ranker has a copy of its own."""
        self._seen_lock = threading.Lock()
        self._by_role: dict[Role, OnlineRanker] = {}
        self._forgotten: list[int] = []
        """Users who were forgotten since the newest version began."""
        self._due, self._store_at = asyncio.Event(), dict[Role, float]()
        self.steps = 0
        """Steps of all rankers since the start."""

    @property
    def seen(self) -> int:
        """Examples since the start."""
        return self._seen.count if self._seen is not None else 0

    def end(self, role: Role) -> None:
        """Move no ranker in this role."""
        self._by_role.pop(role, None)

    def begin(self, role: Role, version: str, stages: "Stages", ranker_ts: int) -> None:
        """Move the ranker of this version from now on; first it learns once more what it has not. In any thread.

        `ranker_ts` is the event time, ms, of the newest example that it has learned.
        """
        published = stages.ranker
        if published is None or not self._config.ranking.online_ranker:
            return self.end(role)
        from model.ranker.learning import LearningRanker, copied
        from model.ranking.features import NAMES

        self._forgotten = []
        learning = LearningRanker(published, len(NAMES))
        with self._seen_lock:
            if self._seen is not None:
                learning.ring = copy.deepcopy(self._seen)
        if not self._resume(version, learning):
            learning.follow(published, ranker_ts)
        stages.ranker = copied(learning.ranker)
        online = OnlineRanker(version, stages, learning)
        online.forget(self._forgotten)
        self._by_role[role] = online
        return None

    def add(self, examples: Sequence[Example]) -> None:
        """Learn from these examples."""
        if not examples or not self._config.ranking.online_ranker:
            return
        from model.ranker.learning import RING_EXAMPLES

        with self._seen_lock:
            if self._seen is None:
                self._seen = Ring(examples[0].features.shape[1], RING_EXAMPLES)
            self._seen.add(examples)
        for online in self._by_role.values():
            online.add(examples)
            if online.due:
                self._due.set()

    def forget(self, users: Sequence[int]) -> None:
        """Drop the examples of these users, hashes."""
        if not users:
            return
        self._forgotten += users
        with self._seen_lock:
            if self._seen is not None:
                for user in users:
                    self._seen.forget(user)
        for online in self._by_role.values():
            online.forget(users)

    async def run(self) -> None:
        """Learn whenever there are enough examples, for ever. At the end the rankers are written for a restart."""
        try:
            await self._run()
        finally:
            for role, online in self._by_role.items():
                online.store(self._config, role)

    async def _run(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            for role, online in list(self._by_role.items()):
                if online.due:
                    try:
                        await online.learn()
                    except Exception:  # what it has learned so far goes on ranking
                        log.exception("the ranker of version %s stays as it is from now on", online.version)
                        self.end(role)
                        continue
                    self.steps += 1
                if online.due:
                    self._due.set()
                await self._store(role, online)

    async def _store(self, role: Role, online: OnlineRanker) -> None:
        """Write a ranker for a restart, now and then."""
        now = time.monotonic()
        if now >= self._store_at.get(role, 0.0):
            self._store_at[role] = now + STORE_EVERY_S
            await asyncio.to_thread(online.store, self._config, role)

    def _resume(self, version: str, learning: "LearningRanker") -> bool:
        """Go on from a stored ranker of this version; False if there is none."""
        for role in ROLES:  # a candidate that was promoted goes on too
            found = ranker_file.read(self._config.data, self._config.worker.instance, role)
            if found is not None and found.version == version and found.ranker is not None:
                learning.ranker.load_state_dict(found.ranker.state_dict())
                return True
        return False
