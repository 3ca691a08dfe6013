"""The versions that a worker ranks with: the champion, the candidate beside it, and what both learn between versions.

A version's own weights were chosen on a few hundred events. The champion's weights then follow the clicks of this
worker (`model.fusion_weights.online`), and the candidate's move by the same amount. Each version's ranker learns from
the worker's examples (`stream.worker.online_rankers`). `anabranch recommend` installs versions through the same
functions, so it ranks with the same weights.

Loading a version imports torch, some 190 MB of memory: a worker without a version never does.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from state.events import Records
from state.id_hash import UNKEYED, IdHash
from state.partition import Partition
from state.pending import Unanswered
from state.sequences import of_users
from state.store import Applied
from stream.config import Config
from stream.kafka.messages import Pointer
from stream.live_metrics import Mode
from stream.stores.artifacts import fetch_version
from stream.worker import online_weights
from stream.worker.live_graph import StoresGraph
from stream.worker.online_rankers import OnlineRankers

if TYPE_CHECKING:
    from model.fusion_weights.online import OnlineFusion
    from model.ranking.stages import Stages

LEARN_EVERY_S = 5.0
"""Time between two steps of the fusion weights. Each holds the event loop for about 30 ms: more of them would show in
the 99th percentile of latencies."""
LEARN_USERS = 64
"""A step learns from the clicks of at most this many users."""


class ServedVersion(NamedTuple):
    """A version, ready to rank."""

    version: str
    created_ts: int
    stages: "Stages"
    sha256: str = ""
    """Hash of its manifest."""
    ranker_ts: int = 0
    """Event time, ms, of the newest example that its ranker has learned."""


class Arm(NamedTuple):
    """Users who are answered by one version."""

    version: ServedVersion | None
    """None: there is no version yet."""
    users: Mapping[int, Unanswered]
    scored: ServedVersion | None
    """Ranks for the same users, is measured by their next events, and never shown."""
    mode: Mode | None
    """`ab` where the candidate answers some users, `shadow` where it is only scored."""
    pair: tuple[str, str] | None
    """Champion and candidate that are compared."""


def load_version(pointer: Pointer, config: Config, id_hash: IdHash = UNKEYED) -> ServedVersion:
    """The version a pointer names: fetched, verified, ready to rank. Raises ArtifactError."""
    import torch

    from model.ranking.fusion import with_set_weights
    from model.ranking.stages import Stages

    torch.set_num_threads(config.worker.rank_threads)
    version = fetch_version(pointer, config)
    trained, settings = version.trained, config.ranking
    vocabulary = trained.vocabulary.hashed_by(id_hash)
    stages = Stages(trained.model, vocabulary, with_set_weights(trained.fusion, settings), settings, trained.ranker)
    created_ts, sha256 = version.manifest.created_ts, version.manifest_sha256
    return ServedVersion(pointer.version, created_ts, stages, sha256, trained.ranker_ts)


def in_candidates_arm(user: int, share: float) -> bool:
    """Whether this user, a hash, gets the candidate: the same users for as long as the share is the same."""
    return (user * 0x9E3779B97F4A7C15 % 2**64) / 2.0**64 < share


class ServedVersions:
    """The champion and the candidate of one worker."""

    def __init__(self, config: Config, graph: StoresGraph) -> None:
        self._config, self._graph = config, graph
        self.champion: ServedVersion | None = None
        self.candidate: ServedVersion | None = None
        self._champions_weights: OnlineFusion | None = None
        self._candidates_weights: OnlineFusion | None = None
        self._learn_at = 0.0
        self.rankers = OnlineRankers(config)

    def arms(self, users: Mapping[int, Unanswered]) -> list[Arm]:
        """Which version answers which users."""
        champion, candidate, share = self.champion, self.candidate, self._config.worker.ab
        if champion is None or candidate is None:
            return [Arm(champion, users, None, None, None)]
        pair = champion.version, candidate.version
        if not share:
            return [Arm(champion, users, candidate, "shadow", pair)]
        chosen = {user for user in users if in_candidates_arm(user, share)}
        arms = [
            Arm(champion, {u: p for u, p in users.items() if u not in chosen}, None, "ab", pair),
            Arm(candidate, {u: p for u, p in users.items() if u in chosen}, None, "ab", pair),
        ]
        return [arm for arm in arms if arm.users]

    @property
    def makes_examples(self) -> bool:
        """Whether lists are kept with their features: a ranker may learn from them, now or in a version to come."""
        if self.champion is None:
            return False
        from model.ranking.fusion import uses_ranker

        return uses_ranker(self._config.ranking)

    def serve(self, champion: ServedVersion) -> None:
        """Answer with this version. Its items are counted first: with a million of them that takes seconds."""
        if not self._graph.empty:
            champion.stages.count_clicks(self._graph)
        weights = self._own_weights(champion)
        if weights is not None:
            stored = online_weights.read(self._config.data).get(self._config.worker.instance)
            if stored is not None and stored.version == champion.version:
                weights.resume(stored.learned)
            elif stored is not None:
                weights.carry_over(stored.learned)
            if self._champions_weights is not None:
                weights.keep_clicks_of(self._champions_weights)
            champion.stages.fusion = weights.fusion
        self._champions_weights = weights
        self.rankers.begin("champion", champion.version, champion.stages, champion.ranker_ts)
        self.champion = champion
        self._follow_champions_weights()

    def score(self, candidate: ServedVersion | None) -> None:
        """Rank with this version beside the champion; None: with none."""
        if candidate is not None and not self._graph.empty:
            candidate.stages.count_clicks(self._graph)
        self._candidates_weights = self._own_weights(candidate) if candidate is not None else None
        if candidate is None:
            self.rankers.end("candidate")
        else:
            self.rankers.begin("candidate", candidate.version, candidate.stages, candidate.ranker_ts)
        self.candidate = candidate
        self._follow_champions_weights()

    def learn(self, store: Partition, events: Records) -> None:
        """Move the champion's weights by these clicks, which the store has not applied yet.

        Called by the event loop while another thread may rank: it reads only numbers that are there already.
        """
        champion, weights, now = self.champion, self._champions_weights, time.monotonic()
        if champion is None or weights is None or now < self._learn_at or not champion.stages.clicks_counted:
            return
        self._learn_at = now + LEARN_EVERY_S
        users, first = np.unique(events["user"], return_index=True)
        users, first = users[:LEARN_USERS], first[:LEARN_USERS]  # in the order of a hash: a random sample
        before = store.positives(users)
        known = np.diff(before.indptr) > 0
        weights.update(champion.stages, of_users(before, known), events["item"][first[known]], self._graph)
        champion.stages.fusion = weights.fusion
        self._follow_champions_weights()
        online_weights.write(self._config.data, self._config.worker.instance, champion.version, weights.learned)

    def update(self, applied: Applied) -> None:
        """Count the clicks that a store has just applied, and those that have left it."""
        for version in (self.champion, self.candidate):
            if version is not None:
                version.stages.update(applied.gained)
                version.stages.remove(applied.lost)

    def reset_clicks(self) -> None:
        """Count all clicks again: a store was opened or closed."""
        for version in (self.champion, self.candidate):
            if version is not None:
                version.stages.reset_clicks()

    def _own_weights(self, version: ServedVersion) -> "OnlineFusion | None":
        """The weights that the version's own training chose, to be moved; None where they stay.

        They stay where a ranker ranks: it reads the fused score, and learns online itself.
        """
        if not self._config.ranking.online_clicks or version.stages.ranker is not None:
            return None
        from model.fusion_weights.online import OnlineFusion

        return OnlineFusion(version.stages.fusion, self._config.ranking)

    def _follow_champions_weights(self) -> None:
        """Move the candidate's weights as far from its version's as the champion's have moved from theirs."""
        if self.candidate is None or self._candidates_weights is None or self._champions_weights is None:
            return
        self._candidates_weights.carry_over(self._champions_weights.learned)
        self.candidate.stages.fusion = self._candidates_weights.fusion
