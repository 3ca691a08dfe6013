"""The one configuration: `anabranch.toml`, then `ANABRANCH_*` variables, then flags, the later the stronger.

A variable names a key in upper case, sections joined by two underscores: `ANABRANCH_TRAINER__EVERY_S=60`. A key or
variable that does not exist is refused by name; so is a value of the wrong type.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from model.settings import GateSettings, ModelSettings, RankingSettings, TrainingSettings
from state.kinds import kinds_of
from state.settings import KINDS, Kind, Positive, Share, StateSettings, Whole
from stream.errors import ConfigError

CONFIG_FILE = "anabranch.toml"
ENV_PREFIX = "ANABRANCH_"
NOT_SETTINGS = frozenset({"ANABRANCH_CONFIG", "ANABRANCH_DATASETS"})


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to connect to the broker: a managed Kafka wants TLS and a user, one on the same machine neither."""

    security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    """Kafka's `security.protocol`: TLS where it says `ssl`, a user and a password where it says `sasl`. The embedded
    broker knows `plaintext` alone."""
    sasl_mechanism: Literal["plain", "scram-sha-256", "scram-sha-512"] = "plain"
    """Kafka's `sasl.mechanism`."""
    sasl_user: str = ""
    """The user, or the API key."""
    sasl_password: str = ""
    """Its password, or the API key's secret; `ANABRANCH_KAFKA__SASL_PASSWORD` keeps it out of files. It is never
    shown."""
    ca_file: str = ""
    """Certificates (PEM) of who may have signed the broker's; empty: those that the system trusts. It is read once,
    at start, as are the next two."""
    cert_file: str = ""
    """Our own certificate (PEM, with its chain), where the broker asks for one."""
    key_file: str = ""
    """Its private key (PEM, not encrypted); empty: it lies in `kafka.cert_file` too."""

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted, and the broker has to prove its name."""
        return self.security in ("ssl", "sasl_ssl")

    @property
    def sasl(self) -> bool:
        """Whether a user and a password are sent."""
        return self.security in ("sasl_plaintext", "sasl_ssl")

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
        if self.key_file and not self.cert_file:
            raise ValueError("key_file is set, but not kafka.cert_file, the certificate that it is the key of")

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        return list((shown | {"sasl_password": "…" if self.sasl_password else ""}).items())

    def __repr__(self) -> str:
        return f"Kafka({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names and shape of the topics; `anabranch init` creates those that are missing."""

    clicks: str = "clicks"
    """Events come in here. All events of a user must lie in one partition: key them by the user."""
    recommendations: str = "recommendations"
    """Recommendations leave here, keyed by user."""
    dead_letters: str = "dead-letters"
    """Messages that are no valid event or request, with the reason in a header."""
    items: str = "items"
    """Titles of items, optional."""
    models: str = "models"
    """Which version serves."""
    requests: str = "requests"
    """"Recommend for this user now"; it must have as many partitions as `clicks`."""
    replies: str = "replies"
    """The answers to requests."""
    commands: str = "commands"
    """What the command line tells workers and trainer."""
    command_replies: str = "command-replies"
    """What they answer."""
    partitions: Whole = 2
    """Partitions of `clicks` when `init` creates it; `requests` and `recommendations` get as many as `clicks`
    has. At most so many workers share the work, and it cannot be changed later."""
    replication: Whole = 1
    """Replicas of each topic when `init` creates it; 3 in production."""


class ClickFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a click's fields lie in the messages: dotted paths into the JSON object."""

    user: str = "user"
    """Where the user is."""
    item: str = "item"
    """Where the item is."""
    ts: str = "ts"
    """Where the time of the event is, ms or ISO-8601; the broker's time where it is missing."""
    event: str = "event"
    """Where the kind of the event is; `click` where it is missing."""
    id: str = "id"
    """Where the id is by which repeats are dropped; optional."""


class ClickSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How clicks are read."""

    fields: ClickFields = ClickFields()
    max_message_bytes: Whole = 1 << 20
    """A longer message goes to the dead letters unread."""
    max_future_s: Positive = 86_400.0
    """An event time further ahead of the broker's clock than this is wrong, and goes to the dead letters."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The consumer of clicks."""

    instance: str = "0"
    """Names this worker; two of one name do not both hear of new versions. `anabranch worker --instance NAME`
    sets it."""
    poll_max_events: Whole = 50_000
    """Most events a worker that is behind takes in one batch."""
    fold_hold_ms: Whole = 500
    """It takes fewer where folding a batch would last longer than this, so that heartbeats and answers go on."""
    poll_wait_ms: Whole = 100
    """A poll returns after this long without an event."""
    fetch_max_bytes: Whole = 16 << 20
    """Most bytes of one fetch from the broker; a longer message is still fetched."""
    session_timeout_ms: Whole = 6_000
    """A worker that the broker has not heard of for this long loses its partitions to others."""
    heartbeat_ms: Whole = 2_000
    """How often a worker tells the broker that it lives; at most a third of `worker.session_timeout_ms`, so that one
    lost beat costs nothing."""
    end_within_s: Positive = 10.0
    """A worker that is told to end and waits longer than this for a broker ends all the same: nothing is lost by it."""
    rank_batch_users: Whole = 256
    """Owed users answered in one forward pass."""
    rank_threads: Whole = 1
    """Threads of torch for ranking; the trainer has its own."""
    baselines: bool = True
    """Test popularity, own most frequent items and item-to-item transitions on the same events as the model."""
    standing_users: Whole = 100_000
    """Users whose last recommendation is remembered for the prequential test."""
    ab: Share = 0.0
    """Share of users, by a stable hash, who get the candidate where there is one; 0: it is only scored."""

    def __post_init__(self) -> None:
        if 3 * self.heartbeat_ms > self.session_timeout_ms:
            raise ValueError(
                f"heartbeat_ms = {self.heartbeat_ms} is more than a third of session_timeout_ms = "
                f"{self.session_timeout_ms}: a beat or two that are late would cost the worker its partitions"
            )


class CheckpointSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Copies of the state in the artifact store, from which a partition that moves is restored.

    They are taken only where `artifacts` is set: a copy on the state's own disk would be lost with it.
    """

    every_s: Positive = 600.0
    """Between two checkpoints of a partition. Where it moves to a machine that never had it, at most this much of the
    log is read again; an older store of that machine's own is used as it is unless it lies 200,000 events behind."""
    keep: Whole = 3
    """Newest checkpoints kept of each partition."""


class TrainerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the trainer learns, and from how much."""

    every_events: Whole = 20_000
    """A cycle begins after this many new events,"""
    every_s: Positive = 300.0
    """or after this long with at least `trainer.min_events`."""
    min_events: Whole = 500
    """No cycle on fewer new events than this, unless commanded."""
    user_events: Whole = 100
    """Newest events of one user that a cycle counts and learns from, however many there are."""
    drift_delta: Share = 0.002
    """A cycle begins at once when ADWIN finds that the model predicts fewer events than before: the chance of a
    false alarm. Smaller is more cautious; 0: never."""
    drift_quiet_s: Positive = 600.0
    """After drift was found, none is looked for this long."""
    replay_users: Whole = 20_000
    """Users besides those with new events whose sequences are learned again in a cycle."""
    keep_versions: Whole = 10
    """Newest versions kept in the artifact store; what serves or is a candidate stays however old."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set."""

    broker: str = ""
    """HOST:PORT[,HOST:PORT] of Kafka; empty: `anabranch up` starts the embedded broker."""
    data: Path = Path("anabranch-data")
    """Directory of the state, the logs and, without `artifacts`, the versions. Each machine has its own."""
    group: str = "anabranch"
    """Consumer group of the workers; two installations on one Kafka need two."""
    artifacts: str = ""
    """Where model versions and checkpoints of the state go: a path or an fsspec URL that all machines share
    (s3:// with `pip install s3fs`, gs:// with `pip install gcsfs`). Empty: versions in `<data>/models`, and no
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

    @property
    def artifacts_url(self) -> str:
        """The artifact store, with its default filled in."""
        return self.artifacts or str(self.data / "models")


def load(path: Path | None = None, env: Mapping[str, str] | None = None, **flags: object) -> Config:
    """The configuration from file, environment and flags; a flag that is None is not set.

    `path` None reads `ANABRANCH_CONFIG` or `anabranch.toml` where it exists. Raises ConfigError, naming the key.
    """
    env = os.environ if env is None else env
    tree = _from_file(path, env)
    for name, value in env.items():
        if name.startswith(ENV_PREFIX) and name not in NOT_SETTINGS:
            _put(tree, name.removeprefix(ENV_PREFIX).lower().split("__"), value, name)
    for key, flag in flags.items():
        if flag is not None:
            _put(tree, key.split("__"), flag, f"--{key.replace('_', '-')}")
    _with_built_in_kinds(tree)
    try:
        config = msgspec.convert(tree, Config, strict=False, str_keys=True, dec_hook=_from_text)
        kinds_of(config.state)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(error, env=env)) from None
    except ValueError as error:
        raise ConfigError(f"setting 'state.kinds': {error}") from None
    _check_addresses(config.broker)
    return config


def _check_addresses(broker: str) -> None:
    """Refuse what the Kafka clients could not take apart. Raises ConfigError."""
    for address in broker.split(","):
        host, colon, port = address.strip().rpartition(":")
        if not colon or port.endswith("]"):  # the clients know a port where none is named
            host, port = address.strip(), "9092"
        try:
            host.encode("idna")
            if not 0 < int(port) < 1 << 16:
                raise ValueError
        except ValueError:
            raise ConfigError(
                f"setting 'broker': {address.strip()!r} is no HOST:PORT, whose port is a number up to 65535"
            ) from None


def _with_built_in_kinds(tree: dict[str, Any]) -> None:
    """What is said of a built-in kind changes that alone; a kind of one's own has to be told whole."""
    state = tree.setdefault("state", {})
    told = state.setdefault("kinds", {}) if isinstance(state, dict) else None
    if not isinstance(told, dict):
        return
    kinds = {name: msgspec.structs.asdict(kind) for name, kind in KINDS.items()}
    for name, own in told.items():
        kinds[name] = kinds.get(name, {}) | own if isinstance(own, dict) else own
        try:
            msgspec.convert(kinds[name], Kind, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(_explain(error, f"state.kinds.{name}")) from None
    state["kinds"] = kinds


def _from_text(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise TypeError(f"expected `{kind.__name__}`, got `{type(value).__name__}`")


def _from_file(path: Path | None, env: Mapping[str, str]) -> dict[str, Any]:
    explicit = path or (Path(env["ANABRANCH_CONFIG"]) if "ANABRANCH_CONFIG" in env else None)
    file = explicit or Path(CONFIG_FILE)
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        if explicit is None:
            return {}
        raise ConfigError(f"there is no configuration file {str(file)!r}") from None
    except OSError as error:
        raise ConfigError(f"the configuration file {str(file)!r} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None


def _put(tree: dict[str, Any], keys: list[str], value: object, source: str) -> None:
    try:
        str(value).encode()
    except UnicodeEncodeError:  # RocksDB and Kafka take nothing else
        raise ConfigError(f"{source}: {str(value)!r} is not UTF-8") from None
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{source}: {key!r} is a value, not a section")
    tree[keys[-1]] = value


def choices_of(setting: str) -> tuple[str, ...]:
    """The values a setting, by its dotted name, is one of; none where it is not one of a few."""
    kind: Any = Config
    for key in setting.split("."):
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
            continue
        kind = {field.name: field.type for field in msgspec.structs.fields(kind)}[key]
    return get_args(kind) if get_origin(kind) is Literal else ()


def _explain(error: msgspec.ValidationError, inside: str = "", env: Mapping[str, str] = {}) -> str:
    """msgspec's "Object contains unknown field `x` - at `$.a`" with the key as a person would write it.

    A key that the environment set is told by the variable's name: Kubernetes makes variables of its own.
    """
    problem, _, where = str(error).partition(" - at ")
    section = (inside + where.strip("`").removeprefix("$")).lstrip(".")
    if problem.startswith("Object contains unknown field"):
        key = problem.split("`")[1]
        dotted = f"{section}.{key}" if section else key
        variable = ENV_PREFIX + dotted.replace(".", "__").upper()
        by = f"environment variable {variable}: " if variable in env else ""
        return f"{by}unknown setting {dotted!r}: see docs/configuration.md for the settings there are"
    choices = f", it is one of {', '.join(choices_of(section))}" if problem.startswith("Invalid enum value") else ""
    return f"setting {section!r}: {problem[0].lower()}{problem[1:]}{choices}"
