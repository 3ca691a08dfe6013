"""The shape of each topic: what `init` creates, and what is wrong with a topic that somebody else created.

This module asks no broker: `stream.kafka.topics` does, and gets from here a sentence for each deviation, with the
command that fixes it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from stream.config import Config

COMPACTED: Literal["compact"] = "compact"
DELETED: Literal["delete"] = "delete"
BOTH: Literal["compact,delete"] = "compact,delete"
SAFE_REPLICAS, SAFE_IN_SYNC = 3, 2
"""With this many replicas, this many of them have every acknowledged message: one broker may fail."""
SHORT_RETENTION_MS, SHORT_RETENTION_BYTES = 86_400_000, 1 << 30
LARGEST_SENT_BYTES = 64 << 10
"""What a topic must accept: a recommendation with long ids and titles."""


class Shape(NamedTuple):
    """A topic as `anabranch init` creates it."""

    cleanup: Literal["compact", "delete", "compact,delete"]
    """Kafka's `cleanup.policy`: the newest message of each key is kept, or every message for some time, or the newest
    of each key for some time."""
    otherwise: str
    """What goes wrong with the other one."""
    essential: bool = False
    """Whether nothing starts with the other one."""
    like_clicks: bool = False
    """As many partitions as `clicks`; else one."""
    more: Mapping[str, str] = {}
    """Other settings of Kafka."""
    written: bool = True
    """Whether we write to it."""
    without: str = ""
    """What is missing without the topic; empty: nothing starts without it."""

    def settings(self, replication: int = 1) -> dict[str, str]:
        """Kafka's settings of the topic with so many replicas."""
        safe = {"min.insync.replicas": str(SAFE_IN_SYNC)} if replication >= SAFE_REPLICAS else {}
        return {"cleanup.policy": self.cleanup} | dict(self.more) | safe


SHAPES = {
    "clicks": Shape(
        DELETED,
        "Kafka removes an event when its key has a newer one, also before it is read",
        essential=True,
        like_clicks=True,
        # The broker sets the time of records. A producer whose clock is years ahead would make all events expire.
        more={"message.timestamp.type": "LogAppendTime"},
        written=False,
    ),
    "recommendations": Shape(
        COMPACTED, "a user's last recommendation is gone when the retention ends", like_clicks=True
    ),
    "dead_letters": Shape(
        DELETED, "Kafka refuses a dead letter without a key, and the worker waits for it", essential=True
    ),
    "items": Shape(COMPACTED, "titles are gone when the retention ends, and a new machine gets none", written=False),
    "models": Shape(
        COMPACTED,
        "the pointer to the serving version is gone when the retention ends, and a worker that starts then serves "
        "popular items only",
        essential=True,
    ),
    "requests": Shape(
        DELETED, "Kafka removes a request when its key has a newer one, and nobody answers it", like_clicks=True,
        written=False,
    ),
    "replies": Shape(DELETED, "Kafka refuses a reply without a key, and the worker waits for it", essential=True),
    "commands": Shape(DELETED, "every command is kept for ever"),
    "command_replies": Shape(DELETED, "every reply is kept for ever"),
    "members": Shape(
        COMPACTED,
        "`anabranch status` no longer shows a member that is away when the retention ends",
        # The broker's clock: members' clocks differ. Compaction begins with the second segment, and each member writes
        # 86,400 records a day.
        more={"message.timestamp.type": "LogAppendTime", "segment.ms": "600000"},
    ),
    "examples": Shape(
        BOTH,
        "without `compact` a forgotten user's examples stay until the retention ends, without `delete` one of every "
        "user is kept for ever",
        like_clicks=True,
        # All examples of a day; of older ones the newest of each user, for a week, within 64 MiB of each partition.
        # A tombstone has removed what came before it after two days at the latest.
        more={
            "retention.ms": "604800000", "retention.bytes": "67108864",
            "segment.ms": "14400000", "segment.bytes": "52428800",
            "min.compaction.lag.ms": "86400000", "max.compaction.lag.ms": "158400000",
        },
        without="the ranker learns from nothing that users do, beyond what each version was published with",
    ),
}  # fmt: skip
"""By the field of `TopicSettings` that has the topic's name; `anabranch init` lists them in this order."""


class FoundTopic(NamedTuple):
    """A topic as a cluster has it."""

    partitions: int
    replicas: int = 0
    """Of the partition with the fewest; 0 if unknown."""
    settings: Mapping[str, str] = {}
    """Kafka's settings as far as the broker lists them."""


class Deviation(msgspec.Struct, frozen=True):
    """What is wrong with a topic: a sentence for a person, with what fixes it."""

    text: str
    fatal: bool
    """Whether workers, trainers and `init` refuse to go on."""


def shapes(config: Config) -> dict[str, Shape]:
    """The shape of each topic by the topic's name."""
    return {getattr(config.topics, field): shape for field, shape in SHAPES.items()}


def deviations(config: Config, found: Mapping[str, FoundTopic], brokers: int = 1) -> list[Deviation]:
    """How the found topics differ from what we need, the fatal ones first. An unknown setting is no deviation.

    `brokers` is the number of brokers of the cluster.
    """
    if missing := [name for name, shape in shapes(config).items() if name not in found and not shape.without]:
        return [Deviation(missing_topics(config, missing), fatal=True)]
    every = [
        *_of_optional(config, found),
        *_of_partitions(config, found),
        *_of_cleanup(config, found),
        *_of_clicks(config, found[config.topics.clicks].settings),
        *_of_replicas(config, found, brokers),
        *_of_sizes(config, found),
    ]
    return sorted(every, key=lambda deviation: not deviation.fatal)


def found_shapes(config: Config, found: Mapping[str, FoundTopic]) -> dict[str, Shape]:
    """The shapes of the topics that exist."""
    return {name: shape for name, shape in shapes(config).items() if name in found}


def missing_topics(config: Config, names: Iterable[str]) -> str:
    """The sentence about topics that do not exist."""
    return f"the broker at {config.broker} has no topic {_names(names)}: run `anabranch init`"


def not_checked(config: Config, names: Iterable[str]) -> str:
    """The sentence about topics whose settings the broker does not show us."""
    return (
        f"the settings of {_names(names)} are not checked: the broker at {config.broker} does not describe them to us "
        f"(the right DescribeConfigs). docs/messages.md lists what they must be"
    )


def _of_optional(config: Config, found: Mapping[str, FoundTopic]) -> Iterable[Deviation]:
    for name, shape in shapes(config).items():
        if name not in found:
            yield Deviation(f"{missing_topics(config, [name])}. Until then {shape.without}", fatal=False)


def _of_partitions(config: Config, found: Mapping[str, FoundTopic]) -> Iterable[Deviation]:
    clicks, requests = config.topics.clicks, config.topics.requests
    count, others = found[clicks].partitions, found[requests].partitions
    if count != others:
        text = (
            f"{clicks!r} has {count} partition{'s' if count != 1 else ''}, {requests!r} has {others}: a user's "
            f"requests would reach a worker that does not have the user's state. Delete the wrong one and run "
            f"`anabranch init`, which gives {requests!r} as many as {clicks!r}"
        )
        yield Deviation(text, fatal=True)


def _of_cleanup(config: Config, found: Mapping[str, FoundTopic]) -> Iterable[Deviation]:
    for name, shape in found_shapes(config, found).items():
        settings = found[name].settings
        policy = settings.get("cleanup.policy")
        if policy is None:
            continue
        wanted: str = shape.cleanup
        if shape.cleanup == DELETED:
            wrong = COMPACTED in policy
        elif shape.cleanup == COMPACTED:
            wrong = DELETED in policy and not _unlimited(settings)
        else:
            wrong, wanted = not (COMPACTED in policy and DELETED in policy), f"[{BOTH}]"
        if wrong:
            text = f"the topic {name!r} has cleanup.policy={policy}: {shape.otherwise}"
            yield Deviation(f"{text}. {_fix(config, [name], f'cleanup.policy={wanted}')}", shape.essential)


def _unlimited(settings: Mapping[str, str]) -> bool:
    return all(settings.get(limit) == "-1" for limit in ("retention.ms", "retention.bytes"))


def _of_clicks(config: Config, settings: Mapping[str, str]) -> Iterable[Deviation]:
    name = config.topics.clicks
    if settings.get("message.timestamp.type") == "CreateTime":
        yield Deviation(
            f"the topic {name!r} keeps its producers' clocks instead of the broker's: a clock that is far ahead is not "
            f"noticed, and with state.window_s set it makes all users' events expire. "
            f"{_fix(config, [name], 'message.timestamp.type=LogAppendTime')}",
            fatal=False,
        )
    too_late = "a worker that is away longer loses events, and a state that is built again has no older ones"
    kept_ms, kept_bytes = (_number(settings, limit) for limit in ("retention.ms", "retention.bytes"))
    if 0 <= kept_ms < SHORT_RETENTION_MS:
        yield Deviation(
            f"the topic {name!r} keeps events for {kept_ms / 3_600_000:.3g} h: {too_late}. 14 days: "
            f"{_fix(config, [name], 'retention.ms=1209600000')}",
            fatal=False,
        )
    if 0 <= kept_bytes < SHORT_RETENTION_BYTES:
        yield Deviation(
            f"the topic {name!r} keeps {kept_bytes:,} bytes of each partition: {too_late}. "
            f"{_fix(config, [name], 'retention.bytes=-1')}",
            fatal=False,
        )


def _of_replicas(config: Config, found: Mapping[str, FoundTopic], brokers: int) -> Iterable[Deviation]:
    def each(wrong: Callable[[int, int], bool]) -> list[str]:
        """Names of the topics with such a number of replicas and of those that must be in sync."""
        topics = {name: found[name] for name in found_shapes(config, found)}
        in_sync = {name: _number(topic.settings, "min.insync.replicas") for name, topic in topics.items()}
        return [n for n, topic in topics.items() if topic.replicas and wrong(topic.replicas, in_sync[n])]

    if brokers > 1 and (names := each(lambda replicas, _: replicas == 1)):
        yield Deviation(
            f"one replica of {_names(names)}, on {brokers} brokers: when one broker is away nothing goes on, and when "
            f"its disk is lost so are the messages. kafka-reassign-partitions.sh adds replicas; topics.replication "
            f"sets them for topics that `anabranch init` creates",
            fatal=False,
        )
    if names := each(lambda replicas, in_sync: in_sync > replicas):
        yield Deviation(
            f"min.insync.replicas is larger than the number of replicas of {_names(names)}: Kafka may accept no message"
            f". {_fix(config, names, 'min.insync.replicas=1')}",
            fatal=False,
        )
    if names := each(lambda replicas, in_sync: in_sync == replicas > 1):
        yield Deviation(
            f"min.insync.replicas is the number of replicas of {_names(names)}: when one broker is away no message is "
            f"accepted. {_fix(config, names, 'min.insync.replicas=1')}, or better add a replica",
            fatal=False,
        )
    if names := each(lambda replicas, in_sync: replicas >= SAFE_REPLICAS and in_sync == 1):
        yield Deviation(
            f"min.insync.replicas=1 of {_names(names)}: acknowledged messages may be on one broker only, and are lost "
            f"with it. {_fix(config, names, f'min.insync.replicas={SAFE_IN_SYNC}')}",
            fatal=False,
        )


def _of_sizes(config: Config, found: Mapping[str, FoundTopic]) -> Iterable[Deviation]:
    written = found_shapes(config, found)
    largest = {name: _number(found[name].settings, "max.message.bytes") for name in written}
    small = [n for n, shape in written.items() if shape.written and 0 <= largest[n] < LARGEST_SENT_BYTES]
    if small:
        yield Deviation(
            f"max.message.bytes is less than {LARGEST_SENT_BYTES:,} for {_names(small)}: Kafka refuses longer "
            f"messages. {_fix(config, small, 'max.message.bytes=1048588')}",
            fatal=False,
        )
    clicks, dead = config.topics.clicks, config.topics.dead_letters
    if 0 <= largest[dead] < largest[clicks]:
        yield Deviation(
            f"{clicks!r} accepts messages of {largest[clicks]:,} bytes, {dead!r} of {largest[dead]:,}: longer dead "
            f"letters are cut. {_fix(config, [dead], f'max.message.bytes={largest[clicks]}')}",
            fatal=False,
        )


def _number(settings: Mapping[str, str], name: str) -> int:
    """A setting that is a number; -1 (Kafka's "no limit") where it is unknown."""
    try:
        return int(settings.get(name, "-1"))
    except ValueError:
        return -1


def _names(topics: Iterable[str]) -> str:
    return ", ".join(map(repr, topics))


def _fix(config: Config, topics: list[str], setting: str) -> str:
    """The command that sets this for each of the topics."""
    name = topics[0] if len(topics) == 1 else "$topic"
    command = (
        f"kafka-configs.sh --bootstrap-server {config.broker} --alter --entity-type topics --entity-name {name} "
        f"--add-config {setting}"
    )
    if len(topics) > 1:
        command = f"for topic in {' '.join(topics)}; do {command}; done"
    return f"`{command}` fixes it"
