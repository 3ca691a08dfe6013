"""Every setting: its name, type, default and meaning. `stream.load_config` reads them from file, environment and flags.

`make docs` writes docs/configuration.md and deploy/anabranch.toml from the docstrings of the fields.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from model.settings import GateSettings, ModelSettings, RankingSettings, TrainingSettings
from state.settings import Count, Positive, Share, StateSettings, Weight, Whole
from stream.http.address import parse_address
from stream.times import Unit

TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
"""What Kafka allows."""

MIN_KEY_CHARACTERS = 16
BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""A token in a header `Authorization: Bearer` (RFC 6750)."""
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#,*]+|null")
RIGHTS: tuple[Literal["read", "write", "operate"], ...] = ("read", "write", "operate")
"""What a token of `[serve]` may allow."""


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to connect to the broker. A managed Kafka requires TLS and a user, a broker on this machine often neither."""

    security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    """Kafka's `security.protocol`: TLS with `ssl` in the name, a user and a password with `sasl`. The embedded broker
    supports `plaintext` only."""
    sasl_mechanism: Literal["plain", "scram-sha-256", "scram-sha-512"] = "plain"
    """Kafka's `sasl.mechanism`."""
    sasl_user: str = ""
    """The user, or the API key."""
    sasl_password: str = ""
    """The user's password, or the API key's secret. `ANABRANCH_KAFKA__SASL_PASSWORD` keeps it out of files. It is
    never logged."""
    ca_file: str = ""
    """Certificates (PEM) of the authorities that may sign the broker's certificate; empty: those that the system
    trusts. This file and the next two are read once, at start."""
    cert_file: str = ""
    """The client's own certificate (PEM, with its chain), if the broker requires one."""
    key_file: str = ""
    """The certificate's private key (PEM, not encrypted); empty: the key is in `kafka.cert_file`."""
    signing_key: str = ""
    """A secret of at least 16 characters, the same for all workers, trainers and operators: `openssl rand -hex 32`
    makes one. Pointers, commands, the id key, versions, checkpoints, backups and requests for a user's history are
    then signed (HMAC-SHA256), and unsigned ones are refused. Two keys with a comma between them replace a key: the
    first one signs, both verify. `ANABRANCH_KAFKA__SIGNING_KEY` keeps it out of files. It is never logged."""

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted and the broker's certificate verified."""
        return self.security in ("ssl", "sasl_ssl")

    @property
    def sasl(self) -> bool:
        """Whether a user and a password are sent."""
        return self.security in ("sasl_plaintext", "sasl_ssl")

    @property
    def signing_keys(self) -> tuple[str, ...]:
        """The keys that verify signatures; the first one signs."""
        return tuple(key.strip() for key in self.signing_key.split(",")) if self.signing_key else ()

    def __post_init__(self) -> None:
        for name in ("sasl_user", "sasl_password"):
            if self.sasl and not getattr(self, name):
                raise ValueError(f"security = '{self.security}' needs kafka.{name}, which is not set")
            if not self.sasl and getattr(self, name):
                raise ValueError(
                    f"{name} is set, but security = '{self.security}' sends no user: "
                    f"set kafka.security to 'sasl_ssl' or 'sasl_plaintext'"
                )
        for name in ("ca_file", "cert_file", "key_file"):
            file = getattr(self, name)
            if file and not self.tls:
                raise ValueError(
                    f"{name} is set, but security = '{self.security}' is not encrypted: "
                    f"set kafka.security to 'ssl' or 'sasl_ssl'"
                )
            if file and not Path(file).is_file():
                raise ValueError(f"{name} = {file!r}: there is no such file")
        if any(len(key) < MIN_KEY_CHARACTERS for key in self.signing_keys):
            raise ValueError(
                f"signing_key has a key of fewer than {MIN_KEY_CHARACTERS} characters, which can be guessed: "
                f"`openssl rand -hex 32` makes one"
            )
        if self.key_file and not self.cert_file:
            raise ValueError(
                "key_file is set, but not kafka.cert_file, the certificate that belongs to it: set both or none"
            )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        return list((shown | {name: "…" for name in ("sasl_password", "signing_key") if shown[name]}).items())

    def __repr__(self) -> str:
        return f"KafkaSettings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of the topics. `anabranch init` creates the missing ones."""

    prefix: str = ""
    """Put before the default name of each topic, and before that of `group`. A second installation on one Kafka needs
    one. A name that is set is used as it is: two installations may read the same `topics.clicks`. Each needs its own
    `data` and `artifacts`."""
    clicks: str = "clicks"
    """Incoming events. All events of a user must be in one partition: key them by the user."""
    recommendations: str = "recommendations"
    """Outgoing recommendations, keyed by user."""
    dead_letters: str = "dead-letters"
    """Messages that are not a valid event or request, with the reason in a header."""
    items: str = "items"
    """Titles of items. Optional."""
    models: str = "models"
    """Pointers to the serving version and to the candidate."""
    requests: str = "requests"
    """Requests for a user's recommendation now. The topic must have as many partitions as `clicks`."""
    replies: str = "replies"
    """The answers to requests."""
    commands: str = "commands"
    """Commands from the command line to workers and trainer."""
    command_replies: str = "command-replies"
    """Replies of workers and trainer to commands."""
    members: str = "members"
    """State of every worker, trainer and `serve`, each second."""
    examples: str = "examples"
    """What was recommended with the features it was ranked by, and what the user did next, keyed by user. Optional:
    without it the trainer teaches the ranker nothing."""
    partitions: Whole = 2
    """Partitions of `clicks` when `init` creates it; `requests`, `recommendations` and `examples` get as many as
    `clicks` has. At most this many workers share the work, and it cannot be changed later."""
    replication: Whole = 1
    """Replicas of each topic when `init` creates it; 3 in production. With 3, each message must be on two
    of them."""

    def __post_init__(self) -> None:
        names: dict[str, str] = {}
        for field, name in msgspec.structs.asdict(self).items():
            if field in ("prefix", "partitions", "replication"):
                continue
            if not TOPIC_NAME.fullmatch(name) or name in (".", ".."):
                raise ValueError(
                    f"{field} = {name!r} is no name for a topic: use at most 249 letters, digits and . _ -"
                )
            if name in names:
                raise ValueError(f"{names[name]} and {field} are both {name!r}: each needs a topic of its own")
            names[name] = field


class ClickFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the fields of a click are in the messages: paths into the JSON object (docs/messages.md#paths)."""

    user: str = "user"
    """Path of the user, with alternatives if there are any: `userId|anonymousId`."""
    item: str = "item"
    """Path of the item."""
    ts: str = "ts"
    """Path of the event's time: a number, ISO-8601 or RFC 2822; the broker's time if it is missing."""
    event: str = "event"
    """Path of the kind of the event; `click` if it is missing."""
    id: str = "id"
    """Path of the id by which repeated events are dropped. Optional."""
    ts_unit: Unit = "auto"
    """Unit of a time that is a number. `auto`: its size decides, for times from 1980 to 2099."""

    def __post_init__(self) -> None:
        for name in CLICK_PATHS:
            path = getattr(self, name)
            if not path and name not in ("user", "item"):
                continue
            if not all(key for alternative in path.split("|") for key in alternative.split(".")):
                raise ValueError(f"{name} = {path!r} is not a path: it has an empty key")


CLICK_PATHS = ("user", "item", "ts", "event", "id")
"""The fields of a click that have a path. An empty path of the last three: the messages have no such field."""


class ClickSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How clicks are read."""

    fields: ClickFields = ClickFields()
    max_message_bytes: Whole = 1 << 20
    """A longer message goes to the dead letters without being decoded."""
    max_future_s: Positive = 86_400.0
    """An event whose time is further ahead of the broker's clock goes to the dead letters."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The worker: it consumes clicks and sends recommendations."""

    instance: str = "0"
    """Name of this worker. Of two workers with one name only one receives new versions. `anabranch worker --instance
    NAME` sets it."""
    group_instance_id: str = ""
    """Kafka's `group.instance.id`, for a worker that is started again under the same name and with the same data, as a
    pod of a StatefulSet is: it keeps its partitions if it is back within `worker.session_timeout_ms`, which must be
    longer than a restart. No other worker may have it. Not with the embedded broker. Empty: a worker that ends leaves
    the group, and others take its partitions at once (docs/operating.md#restart-without-a-gap)."""
    poll_max_events: Whole = 50_000
    """Largest batch, in events, of a worker that is behind."""
    fold_hold_ms: Whole = 500
    """Batches get smaller if applying one takes longer than this, so that heartbeats and answers are not delayed."""
    poll_wait_ms: Whole = 100
    """A poll returns after this long without an event."""
    fetch_max_bytes: Whole = 16 << 20
    """Largest fetch from the broker, in bytes; a single longer message is still fetched."""
    session_timeout_ms: Whole = 6_000
    """A worker that sends no heartbeat for this long loses its partitions to other workers."""
    heartbeat_ms: Whole = 1_000
    """Time between two heartbeats. By the answer to one a worker learns that another one has joined or left, and until
    all of them have learned it nobody gets that one's partitions. At most a third of `worker.session_timeout_ms`, so
    that a lost heartbeat costs nothing."""
    end_within_s: Positive = 10.0
    """A stopping worker waits at most this long for a broker that does not answer. Nothing is lost when it then
    ends."""
    rank_batch_users: Whole = 256
    """How many pending users are answered in one forward pass, at most."""
    requests_per_poll: Whole = 500
    """How many requests are answered between two polls of clicks, at most. A request beyond them is replied to with the
    status `too many`."""
    title_chars: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 200
    """A longer title of an item is cut to this many characters."""
    rank_threads: Whole = 1
    """Number of torch threads for ranking. The trainer has its own."""
    baselines: bool = True
    """Test popularity, own most frequent items and item-to-item transitions on the same events as the model."""
    standing_users: Whole = 100_000
    """For how many users the worker remembers the last recommendation, for the prequential test."""
    http: str = ""
    """HOST:PORT at which the worker answers `/livez`, `/readyz`, `/startupz` and `/metrics`: `127.0.0.1:8081`, or
    `:8081` for every address of the machine. Empty: none."""
    api: bool = False
    """Whether the worker also answers `/v1/` at `worker.http`, as `anabranch serve` does. Its own users are then
    answered without Kafka. Tokens and limits are those of `[serve]`."""
    ab: Share = 0.0
    """Share of users, by a stable hash, who get the candidate's recommendations; 0: the candidate is only scored."""

    def __post_init__(self) -> None:
        _check_listening(self.http)
        if 3 * self.heartbeat_ms > self.session_timeout_ms:
            raise ValueError(
                f"heartbeat_ms = {self.heartbeat_ms} is more than a third of session_timeout_ms = "
                f"{self.session_timeout_ms}: one or two late heartbeats would cost the worker its partitions"
            )
        if self.api and not self.http:
            raise ValueError("api is true, but worker.http is not set: there is no address to answer at")


class CheckpointSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Copies of the state in the artifact store. A partition that moves to another machine is restored from one.

    They are taken only if `artifacts` is set: a copy on the disk of the state would be lost with it.
    """

    every_s: Positive = 600.0
    """Time between two checkpoints of a partition. A machine that takes a partition over for the first time reads at
    most this much of the log again. A machine with an older store of its own uses it, unless it is 200,000 events
    behind."""
    keep: Whole = 3
    """How many checkpoints of each partition are kept: the newest ones."""


class TrainerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the trainer begins a cycle, and how much it learns from."""

    every_events: Whole = 20_000
    """A cycle begins after this many new events, or after `trainer.every_s`."""
    every_s: Positive = 300.0
    """A cycle begins after this long with at least `trainer.min_events` new events."""
    min_events: Whole = 500
    """A cycle needs at least this many new events. `anabranch retrain` needs none."""
    user_events: Whole = 100
    """A cycle counts and learns from at most this many events of a user: the newest ones."""
    drift_delta: Share = 0.002
    """A cycle begins at once when ADWIN detects that the model predicts fewer events than before. This is ADWIN's
    probability of a false alarm: smaller is more cautious; 0: never."""
    drift_quiet_s: Positive = 600.0
    """After drift was detected, the trainer ignores further drift for this time."""
    replay_users: Whole = 20_000
    """How many users without new events a cycle learns from again (experience replay)."""
    http: str = ""
    """As `worker.http`, for the trainer: `127.0.0.1:8082`."""
    keep_versions: Whole = 10
    """How many versions the artifact store keeps: the newest ones. The champion and the candidate are always kept."""

    def __post_init__(self) -> None:
        _check_listening(self.http)


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`anabranch serve`: recommendations and events over HTTP, and the console. A worker with `worker.api` too."""

    http: str = "127.0.0.1:8080"
    """HOST:PORT at which it listens; `:8080` for every address of the machine."""
    instance: str = "0"
    """Name of this process among those that serve."""
    read_token: str = ""
    """A secret of at least 16 characters that a client sends as `Authorization: Bearer ...` to read recommendations;
    empty: everybody may read. Two with a comma between them replace a token: both are accepted. It is never logged."""
    write_token: str = ""
    """The same for sending events; empty: nobody may. It does not allow reading, nor an event that erases a user."""
    operate_token: str = ""
    """The same for acting in the console, and for all that the others allow; empty: nobody may."""
    timeout_ms: Whole = 200
    """A user whose worker does not answer within this time gets the last recommendation, or what is popular."""
    last_bytes: Whole = 64 << 20
    """Memory for users' last recommendations, in bytes; those of the users with the newest ones are kept."""
    client_requests_per_s: Weight = 1000.0
    """Requests a second of one client, on average; more are answered with 429. It may send those of two seconds at
    once. A client is an address (of IPv6 a /64 network) with its token. 0: no limit."""
    proxies: Count = 0
    """Number of proxies before this process that each add the address of their client to `X-Forwarded-For`. 0: the
    header is ignored, because a client could write anything into it."""
    max_body_bytes: Whole = 1 << 20
    """Largest body of a request; a larger one is answered with 413."""
    cors_origins: str = ""
    """Origins of pages that may read answers in a browser, with commas between them: `https://shop.example`; `*`: all.
    Empty: none but pages of the same origin."""
    drain_s: Weight = 2.0
    """After the signal to stop, `/readyz` answers 503 and requests are still answered for this long, so that whatever
    distributes the requests looks elsewhere."""

    def tokens(self, right: Literal["read", "write", "operate"]) -> tuple[str, ...]:
        """The tokens that have a right by name."""
        text: str = getattr(self, f"{right}_token")
        return tuple(token.strip() for token in text.split(",")) if text else ()

    @property
    def origins(self) -> frozenset[str]:
        """The allowed origins."""
        return frozenset(origin.strip() for origin in self.cors_origins.split(",") if origin.strip())

    def __post_init__(self) -> None:
        _check_listening(self.http)
        for right in RIGHTS:
            for token in self.tokens(right):
                if len(token) < MIN_KEY_CHARACTERS:
                    raise ValueError(
                        f"{right}_token has a token of fewer than {MIN_KEY_CHARACTERS} characters, which can be "
                        f"guessed: `openssl rand -hex 32` makes one"
                    )
                if not BEARER.fullmatch(token):
                    raise ValueError(
                        f"{right}_token has a character that no client can send in a header: use letters, digits and "
                        f"- . _ ~ + / with = at the end"
                    )
        for origin in self.origins - {"*"}:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"cors_origins has {origin!r}, which is no origin: write it as a browser sends it, without a path, "
                    f"as in https://shop.example"
                )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        return list((shown | {f"{right}_token": "…" for right in RIGHTS if shown[f"{right}_token"]}).items())

    def __repr__(self) -> str:
        return f"ServeSettings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How processes log."""

    format: Literal["text", "json"] = "text"
    """`text` for people; `json`: one object a line (docs/operating.md#logs)."""
    max_bytes: Whole = 16 << 20
    """Under `anabranch up` the output of each process is in `<data>/worker.log` and so on. A file that
    would be larger gets the ending `.1`, and a new one begins."""
    keep: Annotated[int, msgspec.Meta(ge=0)] = 5
    """How many of the older files are kept of each; 0: none, the file is emptied."""


def _check_listening(http: str) -> None:
    """Refuse an address that nothing can listen on. Raises ValueError."""
    if http:
        try:
            parse_address(http)
        except ValueError as reason:
            raise ValueError(f"http = {http!r} {reason}") from None


class TracingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Spans of a worker (docs/tracing.md). Needs `pip install 'anabranch[tracing]'`."""

    endpoint: str = ""
    """URL of a collector that takes OTLP over HTTP: `http://127.0.0.1:4318`. Empty: no spans are made. A recommendation
    has the `traceparent` of its click in both cases."""

    def __post_init__(self) -> None:
        if self.endpoint and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", self.endpoint):
            raise ValueError(f"endpoint = {self.endpoint!r} is not a URL: http://HOST:PORT or https://HOST:PORT")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings."""

    broker: str = ""
    """HOST:PORT[,HOST:PORT] of Kafka; empty: `anabranch up` starts the embedded broker."""
    data: Path = Path("anabranch-data")
    """Directory of the state, the logs and, without `artifacts`, the versions. Each machine has its own."""
    group: str = "anabranch"
    """Consumer group of the workers. Two installations on one Kafka need different ones: `topics.prefix` sees to it."""
    artifacts: str = ""
    """The artifact store, for model versions and checkpoints of the state: a path or an fsspec URL that all machines
    share (s3:// with `pip install s3fs`, gs:// with `pip install gcsfs`). Empty: versions in `<data>/models`, and no
    checkpoints."""
    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    clicks: ClickSettings = ClickSettings()
    state: StateSettings = StateSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    gate: GateSettings = GateSettings()
    ranking: RankingSettings = RankingSettings()
    worker: WorkerSettings = WorkerSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    trainer: TrainerSettings = TrainerSettings()
    serve: ServeSettings = ServeSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()

    @property
    def artifacts_url(self) -> str:
        """The URL of the artifact store, with its default."""
        return self.artifacts or str(self.data / "models")


def setting_names(kind: Any = Config, section: str = "") -> Iterator[str]:
    """The dotted names of all settings and sections."""
    for field in msgspec.structs.fields(kind):
        yield section + field.name
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from setting_names(field.type, f"{section}{field.name}.")


def choices_of(setting: str) -> tuple[str, ...]:
    """The allowed values of a setting, by its dotted name; none if it is not a choice."""
    kind: Any = Config
    for key in setting.split("."):
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
            continue
        kind = {field.name: field.type for field in msgspec.structs.fields(kind)}[key]
    return get_args(kind) if get_origin(kind) is Literal else ()
