"""What a worker is doing now, read from memory when somebody asks: for `/metrics`, and for its health."""

from typing import NamedTuple

from aiokafka import AIOKafkaConsumer

from stream.config import Config
from stream.http.readiness import not_ready
from stream.kafka.lease import Lease
from stream.live_metrics import ALL_VERSIONS, OWN, POPULARITY, TRANSITIONS
from stream.metrics.disk import Disk
from stream.metrics.samples import Samples
from stream.stores.assignment import Assignment, Phase
from stream.stores.checkpoints import Checkpoints
from stream.worker.lag import Lag
from stream.worker.pipeline import Pipeline
from stream.worker.served_versions import ServedVersions
from stream.worker.version_follower import VersionFollower

OUTCOMES = {
    "applied": "applied", "dead_letter": "dead", "duplicate": "duplicate", "too_old": "too_old", "lost": "lost",
}  # fmt: skip
"""The field of the progress that counts each outcome."""
RIVALS = {"model": ALL_VERSIONS, "popularity": POPULARITY, "own": OWN, "transitions": TRANSITIONS}


class Present(NamedTuple):
    """The parts of a running worker."""

    config: Config
    consumer: AIOKafkaConsumer
    assignment: Assignment
    lease: Lease
    pipeline: Pipeline
    served: ServedVersions
    versions: VersionFollower
    checkpoints: Checkpoints
    lag: Lag
    disk: Disk

    def not_ready(self) -> list[str]:
        """Why the worker is not ready; nothing where it is."""
        return not_ready(
            {number: phase.words for number, phase in self.assignment.phases().items()},
            joined=self.assignment.joined,
            confirmed=self.lease.held,
            paused=self.assignment.paused,
            version_problem=self.versions.unserved,
        )

    def fill(self, samples: Samples) -> None:
        """Every metric that is not counted as it happens."""
        assignment = self.assignment
        samples.add("ready", not self.not_ready())
        samples.add("paused", assignment.paused)
        samples.add("group_confirmed", self.lease.held)
        samples.add("rebalances_total", assignment.rebalances)
        partitions = self.consumer.partitions_for_topic(self.config.topics.clicks)
        if partitions:
            samples.add("clicks_partitions", len(partitions))
        for number, phase in assignment.phases().items():
            samples.add_one_of("partition_phase", phase.name.lower(), number)
        for number, log_end in assignment.log_ends().items():
            self._fill_partition(samples, number, log_end)
        self._fill_model(samples)
        self._fill_process(samples)

    def _fill_partition(self, samples: Samples, number: int, log_end: int) -> None:
        store = self.assignment.stores[number]
        progress = store.progress
        caught_up = self.assignment.phase(number) is Phase.ANSWERING
        remaining = 0 if caught_up else max(log_end - progress.log_offset, 0)
        samples.add("restore_remaining_events", remaining, number)
        for name, lag in (
            ("partition_lag_events", self.lag.events(number)),
            ("partition_lag_seconds", self.lag.seconds(number)),
        ):
            if lag is not None:
                samples.add(name, lag, number)
        for outcome, field in OUTCOMES.items():
            samples.add("events_total", getattr(progress, field), number, outcome)
        for problem in ("key_mismatch", "keyless", "foreign_partition"):
            samples.add("misplaced_events_total", getattr(progress, problem), number, problem)
        samples.add("pending_users", store.pending.users, number)
        samples.add("forget_pending", store.erasures.pending, number)
        samples.add("graph_users", progress.users, number)
        samples.add("graph_items", progress.items, number)
        samples.add("graph_edges", progress.edges, number)
        scores = self.pipeline.observed.scores.get(store, {})
        for by, key in RIVALS.items():
            if (score := scores.get(key)) is not None:
                samples.add("prequential_tests_total", score.events, number, by)
                samples.add("prequential_hits_total", score.hits, number, by)
                samples.add("prequential_ndcg_total", score.ndcg, number, by)

    def _fill_model(self, samples: Samples) -> None:
        served = self.served
        samples.add("examples_waiting", len(self.pipeline.last_shown))
        samples.add("ranker_steps_total", served.rankers.steps)
        samples.add("model_as_named", not self.versions.problem)
        for role, version in (("champion", served.champion), ("candidate", served.candidate)):
            if version is not None:
                samples.add("model_info", 1, version.version, role)
        if served.champion is None:
            return
        samples.add("model_created_timestamp_seconds", served.champion.created_ts / 1000)
        for signal in ("model", "evidence", "repeat", "popularity"):
            samples.add("fusion_weight", getattr(served.champion.stages.fusion, signal), signal)

    def _fill_process(self, samples: Samples) -> None:
        counts = self.pipeline.outbox.counts
        samples.add("refused_messages_total", counts.smaller, "smaller")
        samples.add("refused_messages_total", counts.unsendable, "dead_letter")
        samples.add("refused_messages_total", counts.lost_dead_letters, "dropped")
        taken = self.config.checkpoints.every_s if self.config.artifacts else 0
        samples.add("checkpoint_interval_seconds", taken)
        samples.add("checkpoint_failures_total", self.checkpoints.failures)
        for number, ts in self.checkpoints.completed_ts.items():
            if number in self.assignment.stores:
                samples.add("checkpoint_last_timestamp_seconds", ts / 1000, number)
        if (use := self.disk.use) is not None:
            samples.add("disk_free_bytes", use.free)
            for kind, size in use.by_kind.items():
                samples.add("data_bytes", size, kind)
