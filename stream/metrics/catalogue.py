"""Every metric: its name, type, labels and meaning, and what a normal value is.

`make docs` writes docs/metrics.md from this list, and each process exposes those of its kind. Names follow the
conventions of Prometheus: a counter ends in `_total`, and units are seconds, bytes and shares from 0 to 1. Every label
has few values.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

Process = Literal["worker", "trainer", "serve"]
Type = Literal["counter", "gauge", "histogram"]

STEPS = ("decode", "apply", "write", "rank", "send", "record", "commit")
"""The seven steps of `stream/worker/pipeline.py`."""
SOURCES = ("ranker", "model", "popularity")
EXAMPLE_OUTCOMES = ("sent", "missed", "lost")
EXAMPLE_SKIPPED = ("malformed", "schema")
REQUEST_OUTCOMES = ("ok", "too_many", "unsigned", "invalid")
DEAD_LETTER_REASONS = (
    "tombstone", "too_large", "not_json", "event", "user", "item", "id", "time", "request", "refused",
)  # fmt: skip
"""What was wrong with a record. `refused`: an answer that its own topic did not take."""
EVENT_OUTCOMES = ("applied", "dead_letter", "duplicate", "too_old", "lost")
MISPLACED = ("key_mismatch", "keyless", "foreign_partition")
REFUSED_OUTCOMES = ("smaller", "dead_letter", "dropped")
RIVALS = ("model", "popularity", "own", "transitions")
PHASES = ("opening", "catching_up", "answering", "faulted")
DATA_KINDS = ("state", "aside", "copies", "models", "titles", "logs", "other")
CYCLE_OUTCOMES = ("promoted", "kept", "pinned", "shadow", "not_scored", "failed")
CYCLE_PHASES = ("read", "first_fit", "weights", "last_fit", "gate", "publish")
ANSWERED_BY = ("owner", "last", "popular", "none")
SENT_OUTCOMES = ("accepted", "invalid", "unsent")

STEP_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LATENCY_BUCKETS = (
    0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
)  # fmt: skip
CYCLE_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0)

NO_LABELS: Mapping[str, tuple[str, ...]] = MappingProxyType({})
PARTITION: Mapping[str, tuple[str, ...]] = MappingProxyType({"partition": ()})


class Metric(NamedTuple):
    """One metric."""

    name: str
    """Without the prefix `anabranch_`; a counter's ends in `_total`."""
    type: Type
    meaning: str
    normal: str
    labels: Mapping[str, tuple[str, ...]] = NO_LABELS
    """Values by label; none where they are partitions, versions, routes or HTTP codes."""
    of: tuple[Process, ...] = ("worker",)
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """The name on the page that Prometheus reads."""
        return f"anabranch_{self.name}"


METRICS: tuple[Metric, ...] = (
    # Every process
    Metric(
        "build_info", "gauge", "Version of Anabranch, and the kind of the process.", "1",
        {"version": (), "kind": ("worker", "trainer", "serve")}, ("worker", "trainer", "serve"),
    ),
    Metric(
        "ready", "gauge", "1 where `/readyz` answers 200, else 0.", "1",
        of=("worker", "trainer", "serve"),
    ),
    Metric(
        "disk_free_bytes", "gauge",
        "Room on the disk of the data directory for this user. Measured every 15 s; absent while the disk does not "
        "answer.",
        "more than `anabranch_data_bytes` of kind `state`: a rebuild needs as much again", of=("worker", "trainer"),
    ),
    # A worker's place in the group
    Metric("paused", "gauge", "1 while an operator's pause lasts: no clicks are read.", "0"),
    Metric(
        "group_confirmed", "gauge",
        "1 while the group has confirmed this worker within its session timeout. Without it nothing is applied or "
        "sent: the broker is away, or another worker owns the partitions. A worker without partitions has 0.",
        "1 where it owns a partition",
    ),
    Metric(
        "rebalances_total", "counter", "Assignments that this worker got from the group.",
        "rises by a few with each worker that joins or leaves",
    ),
    Metric(
        "clicks_partitions", "gauge", "Partitions of the topic `clicks`, as the broker tells this worker.",
        "the same at every worker; equal to the partitions that all workers own together",
    ),
    Metric(
        "partition_phase", "gauge",
        "1 for the phase that an owned partition is in, 0 for the others (`stream/stores/assignment.py`).",
        "`answering` is 1", {"partition": (), "phase": PHASES},
    ),
    Metric(
        "partition_lag_events", "gauge",
        "Offsets up to the last stable one of the log that are not applied yet. Absent until the store is open.",
        "below the clicks of a second, and 0 now and then", PARTITION,
    ),
    Metric(
        "partition_lag_seconds", "gauge",
        "For how long the oldest record that is not applied has been in the log, at most; 0: all are applied. A "
        "restarted worker that is behind begins with the age of the newest event that it has applied.",
        "below 1", PARTITION,
    ),
    Metric(
        "restore_remaining_events", "gauge",
        "Offsets that an opened partition has to read before it answers. Absent until the store is open.",
        "0", PARTITION,
    ),
    # The path of an event
    Metric(
        "events_total", "counter",
        "Records of `clicks` by what became of them. The store counts them, so a restart goes on and does not begin "
        "at 0.",
        "`applied` grows; `lost` never does", {"partition": (), "outcome": EVENT_OUTCOMES},
    ),
    Metric(
        "misplaced_events_total", "counter",
        "Applied events whose record had another key than its user, no key, or was not in the partition of its key.",
        "does not grow: two partitions would have one user's events", {"partition": (), "problem": MISPLACED},
    ),
    Metric(
        "step_duration_seconds", "histogram",
        "Duration of each of the seven steps of an event's path, a batch at a time (ARCHITECTURE.md).",
        "tens of milliseconds; `apply` and `write` up to `worker.fold_hold_ms` while the worker catches up",
        {"step": STEPS}, buckets=STEP_BUCKETS,
    ),
    Metric(
        "recommendation_latency_seconds", "histogram",
        "From the broker's time of a click to the acknowledgement of the recommendation that answers it. Of the clicks "
        "that one recommendation answers, the oldest counts. Clicks that were applied before a restart have no time.",
        "99th percentile below 1 s", buckets=LATENCY_BUCKETS,
    ),
    Metric(
        "recommendations_total", "counter", "Acknowledged recommendations, by what ranked them.",
        "`ranker` and `model` far above `popularity` once a version serves", {"source": SOURCES},
    ),
    Metric(
        "pending_users", "gauge",
        "Users that wait for an answer. Users beyond 100,000 are on disk and count as one.",
        "below the clicks of a second", PARTITION,
    ),
    Metric(
        "dead_letters_total", "counter", "Acknowledged dead letters, by what was wrong.",
        "does not grow, or as slowly as producers make mistakes", {"reason": DEAD_LETTER_REASONS},
    ),
    Metric(
        "refused_messages_total", "counter",
        "Messages that their topic refused as too large or invalid: sent in a smaller form, sent to the dead letters, "
        "or dropped because the dead letters refused them too.",
        "does not grow", {"outcome": REFUSED_OUTCOMES},
    ),
    Metric(
        "requests_total", "counter",
        "Records of `requests`: answered, refused because too many came (`worker.requests_per_poll`), for a history "
        "and not signed with `kafka.signing_key`, or not a request.",
        "`ok` only", {"outcome": REQUEST_OUTCOMES},
    ),
    Metric(
        "request_duration_seconds", "histogram",
        "From the time of a request's record to the acknowledgement of its answer.",
        "99th percentile below 1 s", buckets=LATENCY_BUCKETS,
    ),
    Metric(
        "forget_pending", "gauge",
        "Users who were forgotten and whose tombstone is not sent, or whose bytes are still in the files; at least 1 "
        "until the files are rewritten.",
        "0 some minutes after a forget", PARTITION,
    ),
    # The model
    Metric(
        "model_info", "gauge",
        "1 for each version that is in use: `champion` answers, `candidate` is scored beside it.",
        "one champion, the same at every worker", {"version": (), "role": ("champion", "candidate")},
    ),
    Metric(
        "model_created_timestamp_seconds", "gauge",
        "When the version that answers was made. Absent while popular items are recommended.",
        "moves as often as the trainer promotes",
    ),
    Metric(
        "model_as_named", "gauge",
        "1 where the version that the pointer names answers, or no version is named; 0 where it could not be loaded.",
        "1",
    ),
    Metric(
        "prequential_tests_total", "counter",
        "Clicks that tested what was recommended before them: to the versions together (`model`), and to the rivals "
        "that were computed at the same moment. The store counts them.",
        "grows with the clicks, the same for all four", {"partition": (), "by": RIVALS},
    ),
    Metric(
        "prequential_hits_total", "counter",
        "Tests whose item was among the ten recommended ones. Divided by the tests this is Hit@10 of any window.",
        "`model` above `popularity`", {"partition": (), "by": RIVALS},
    ),
    Metric(
        "prequential_ndcg_total", "counter", "Sum of NDCG@10 over the tests. Divided by the tests this is NDCG@10.",
        "`model` above `popularity`", {"partition": (), "by": RIVALS},
    ),
    Metric(
        "fusion_weight", "gauge", "Weight of each signal in the score, as workers adjust it between versions.",
        "moves slowly; `repeat` may be negative", {"signal": ("model", "evidence", "repeat", "popularity")},
    ),
    Metric(
        "examples_total", "counter",
        "What users did next, after a list whose features were kept: acknowledged in the topic `examples`; `missed`: "
        "of an item that was no candidate item; `lost`: not acknowledged, or the topic is missing.",
        "`sent` grows with the clicks, by at most 50 a second; `missed` far below it; `lost` does not grow",
        {"outcome": EXAMPLE_OUTCOMES},
    ),
    Metric(
        "examples_waiting", "gauge", "Users whose last list is kept with its features, until their next click.",
        "up to 4,096",
    ),
    Metric(
        "ranker_steps_total", "counter", "How often rankers have learned online, from 16 new examples each time.",
        "grows by one with 16 examples `sent`; 0 without a ranker or with `ranking.online_ranker` off",
    ),
    # State and disk
    Metric("graph_users", "gauge", "Users with a step in the store.", "follows the shop", PARTITION),
    Metric("graph_items", "gauge", "Items with an edge in the store.", "follows the shop", PARTITION),
    Metric("graph_edges", "gauge", "Edges that the store holds.", "flat once `state.window_s` is reached", PARTITION),
    Metric(
        "checkpoint_last_timestamp_seconds", "gauge",
        "When the newest checkpoint that this process uploaded was complete. Absent before the first.",
        "at most two `checkpoints.every_s` ago", PARTITION,
    ),
    Metric(
        "checkpoint_failures_total", "counter", "Checkpoints that failed. The next round tries again.", "does not grow",
    ),
    Metric(
        "checkpoint_interval_seconds", "gauge",
        "`checkpoints.every_s`; 0 where `artifacts` is not set and none are taken.", "600",
    ),
    Metric(
        "data_bytes", "gauge",
        "Bytes in the data directory: of stores, of stores that were moved aside, of copies that are being uploaded, "
        "of versions, of titles, of logs. Measured every 15 s; absent while the disk does not answer.",
        "`state` follows the edges; `aside` is 0 or has been looked at", {"kind": DATA_KINDS},
    ),
    # The trainer
    Metric(
        "trainer_cycles_total", "counter",
        "Cycles by outcome. `kept`: the gate kept the champion; `pinned`: an operator's pin did; `shadow`: the "
        "candidate is scored beside it; `not_scored`: meant as one, but worse.",
        "`promoted` grows, `failed` does not", {"outcome": CYCLE_OUTCOMES}, ("trainer",),
    ),
    Metric(
        "trainer_phase_duration_seconds", "histogram", "Duration of each phase of a cycle.",
        "`first_fit` takes most of it", {"phase": CYCLE_PHASES}, ("trainer",), CYCLE_BUCKETS,
    ),
    Metric(
        "trainer_examples", "gauge", "Examples that the next cycle fits the ranker to, as the last one read them.",
        "6,000 in a shop with so many clicks a week", of=("trainer",),
    ),
    Metric(
        "trainer_examples_skipped_total", "counter",
        "Messages of the topic `examples` that are no examples, or have features of another version of Anabranch.",
        "does not grow; `schema` does until the topic holds no messages from before an upgrade",
        {"reason": EXAMPLE_SKIPPED}, ("trainer",),
    ),
    Metric("trainer_learning", "gauge", "1 while a cycle runs.", "0 or 1", of=("trainer",)),
    Metric("trainer_progress_ratio", "gauge", "Share of the running cycle that is done.", "up to 1", of=("trainer",)),
    Metric(
        "trainer_new_events", "gauge",
        "Events since the last cycle began, at most `trainer.user_events` of a user.",
        "below `trainer.every_events`", of=("trainer",),
    ),
    Metric(
        "trainer_learned_offset", "gauge",
        "Offset up to which the champion has learned a partition, as the state counts offsets.",
        "grows with each version", PARTITION, ("trainer",),
    ),
    Metric(
        "trainer_unlearned_events", "gauge",
        "Offsets of a partition that the state has and the champion has not learned. The difference between the "
        "largest and the smallest is how unfair the training data is.",
        "below `trainer.every_events` in all, and even between partitions", PARTITION, ("trainer",),
    ),
    Metric(
        "trainer_last_success_timestamp_seconds", "gauge",
        "When the last cycle succeeded, also where the gate kept the champion or it was before a restart. Absent "
        "before the first.",
        "at most a few `trainer.every_s` ago while clicks arrive", of=("trainer",),
    ),
    Metric(
        "trainer_consecutive_failures", "gauge", "Cycles that failed since the last that succeeded.", "0",
        of=("trainer",),
    ),
    Metric("drift_total", "counter", "How often drift was found.", "grows rarely", of=("trainer",)),
    # HTTP
    Metric(
        "http_requests_total", "counter", "Answers of the HTTP interface, by route and status code.",
        "codes of 2xx and 4xx", {"route": (), "code": ()}, ("serve",),
    ),
    Metric(
        "http_request_duration_seconds", "histogram", "Duration of an answer of the HTTP interface.",
        "99th percentile below 50 ms", {"route": ()}, ("serve",), LATENCY_BUCKETS,
    ),
    Metric(
        "http_recommendations_total", "counter",
        "Recommendations of the HTTP interface by who answered: the owner of the user, or a fallback because it did "
        "not in time: the user's last one, what is popular, or nothing.",
        "`owner` only", {"by": ANSWERED_BY}, ("serve",),
    ),
    Metric(
        "http_events_total", "counter",
        "Events that came over HTTP: acknowledged by Kafka, not valid, or not acknowledged in time.",
        "`accepted` only", {"outcome": SENT_OUTCOMES}, ("serve",),
    ),
)  # fmt: skip
"""In the order of docs/metrics.md."""

BY_NAME: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in METRICS})
