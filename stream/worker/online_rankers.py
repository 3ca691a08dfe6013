"""The rankers of champion and candidate, moved by the examples of this worker between two versions.

A version's ranker has learned what the trainer had read of the topic. The worker goes on with the examples that it
makes itself, in a thread and on a copy: a ranking reads the present ranker or the next one, never a half of each. A
new version first learns once more what this worker has seen after that version's newest example.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from model.ranker.examples import Example
from stream.config import Config
from stream.worker import ranker_file
from stream.worker.ranker_file import ROLES, Role, StoredRanker

if TYPE_CHECKING:
    from model.ranker.learning import LearningRanker
    from model.ranking.stages import Stages

RECENT_EXAMPLES = 6_000
"""Examples of this worker that a new version may learn once more, some 30 MB. Each ranker has as many of its own."""
MAX_BEHIND = 1_024
"""Examples that wait for a step of the ranker. Beyond them the oldest are not learned online."""
STORE_EVERY_S = 10.0


class OnlineRanker:
    """The ranker of one version."""

    def __init__(self, version: str, stages: "Stages", learning: "LearningRanker", ts: int) -> None:
        from model.ranker.learning import STEP_EXAMPLES

        self.version, self._stages, self._learning = version, stages, learning
        self._step = STEP_EXAMPLES
        self._waiting: deque[Example] = deque(maxlen=MAX_BEHIND)
        self._forgotten: list[int] = []
        self._learns = threading.Lock()
        self.ts = ts
        """Event time, ms, of the newest example that it has learned."""
        self.steps = 0

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
        """Take one step in a thread, and rank with the result from then on."""
        taken = [self._waiting.popleft() for _ in range(min(self._step, len(self._waiting)))]
        await asyncio.to_thread(self.learn_now, taken)

    def learn_now(self, examples: Sequence[Example]) -> None:
        """Learn these examples, and rank with the result from then on."""
        from model.ranker.learning import copied

        with self._learns:
            self._learning.add(examples)
            self._forget()
            self.ts = max([self.ts, *(example.ts for example in examples)])
            self.steps += 1
            self._stages.ranker = copied(self._learning.ranker)

    def stored(self) -> StoredRanker:
        """The present ranker, as it is stored for a restart."""
        from model.ranking.features import SCHEMA

        ranker = self._stages.ranker
        assert ranker is not None
        weights = {name: tensor.numpy() for name, tensor in ranker.state_dict().items()}
        return StoredRanker(self.version, SCHEMA, self.ts, weights)

    def _forget(self) -> None:
        for user in self._forgotten:
            self._learning.ring.forget(user)
        self._forgotten = []


class OnlineRankers:
    """The rankers of the versions that one worker serves and scores."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._recent: deque[Example] = deque(maxlen=RECENT_EXAMPLES)
        self._by_role: dict[Role, OnlineRanker] = {}
        self._forgotten: list[int] = []
        """Users who were forgotten since the newest version began."""
        self._due, self._store_at = asyncio.Event(), dict[Role, float]()
        self.steps = 0
        """Steps of all rankers since the start."""

    def end(self, role: Role) -> None:
        """Move no ranker in this role."""
        self._by_role.pop(role, None)

    def begin(self, role: Role, version: str, stages: "Stages", ranker_ts: int) -> None:
        """Move the ranker of this version from now on; first it learns once more what it has not. In any thread.

        `ranker_ts` is the event time, ms, of the newest example that it has learned.
        """
        if stages.ranker is None or not self._config.ranking.online_ranker:
            self.end(role)
            return
        from model.ranker.learning import STEP_EXAMPLES, LearningRanker, copied
        from model.ranking.features import NAMES

        self._forgotten = []
        recent = list(self._recent)
        learning = LearningRanker(copied(stages.ranker), len(NAMES))
        ts = max(ranker_ts, self._resume(version, stages, learning))
        online = OnlineRanker(version, stages, learning, ts)
        learning.ring.add([example for example in recent if example.ts <= online.ts])
        newer = [example for example in recent if example.ts > online.ts]
        whole_steps = len(newer) - len(newer) % STEP_EXAMPLES
        if whole_steps:
            online.learn_now(newer[:whole_steps])
        online.add(newer[whole_steps:])
        online.forget(self._forgotten)
        self._by_role[role] = online

    def add(self, examples: Sequence[Example]) -> None:
        """Learn from these examples."""
        if not self._config.ranking.online_ranker:
            return
        self._recent.extend(examples)
        for online in self._by_role.values():
            online.add(examples)
            if online.due:
                self._due.set()

    def forget(self, users: Sequence[int]) -> None:
        """Drop the examples of these users, hashes."""
        if not users:
            return
        self._recent = deque((e for e in self._recent if e.user not in users), maxlen=RECENT_EXAMPLES)
        self._forgotten += users
        for online in self._by_role.values():
            online.forget(users)

    async def run(self) -> None:
        """Learn whenever there are enough examples, for ever."""
        while True:
            await self._due.wait()
            self._due.clear()
            for role, online in list(self._by_role.items()):
                if online.due:
                    await online.learn()
                    self.steps += 1
                if online.due:
                    self._due.set()
                await self._store(role, online)

    async def _store(self, role: Role, online: OnlineRanker) -> None:
        """Write a ranker for a restart, now and then."""
        now = time.monotonic()
        if now < self._store_at.get(role, 0.0):
            return
        self._store_at[role] = now + STORE_EVERY_S
        worker = self._config.worker.instance
        await asyncio.to_thread(ranker_file.write, self._config.data, worker, role, online.stored())

    def _resume(self, version: str, stages: "Stages", learning: "LearningRanker") -> int:
        """Go on from a stored ranker of this version; the time of its newest example, 0 where there is none."""
        import torch

        from model.ranker.learning import copied
        from model.ranking.features import SCHEMA

        shapes = {name: tuple(tensor.shape) for name, tensor in learning.ranker.state_dict().items()}
        for role in ROLES:  # a candidate that was promoted goes on too
            found = ranker_file.read(self._config.data, self._config.worker.instance, role)
            if found is None or (found.version, found.schema) != (version, SCHEMA):
                continue
            if shapes == {name: weights.shape for name, weights in found.weights.items()}:
                learning.ranker.load_state_dict({n: torch.from_numpy(w.copy()) for n, w in found.weights.items()})
                stages.ranker = copied(learning.ranker)
                return found.ts
        return 0
