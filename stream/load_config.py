"""Load the configuration: `anabranch.toml`, then `ANABRANCH_*` variables, then flags; the later overrides the earlier.

A variable names a key in upper case and joins sections with two underscores: `ANABRANCH_TRAINER__EVERY_S=60`. An
unknown key or variable is refused by name, and so is a value of the wrong type.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from state.kinds import kinds_of
from state.settings import KINDS, Kind
from stream.config import Config, TopicSettings, choices_of, setting_names
from stream.errors import ConfigError
from stream.files.permissions import warn_about_private_key, warn_about_secrets

CONFIG_FILE = "anabranch.toml"
ENV_PREFIX = "ANABRANCH_"
NOT_SETTINGS = frozenset({"ANABRANCH_CONFIG", "ANABRANCH_DATASETS"})


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
    _with_prefix(tree)
    try:
        config = msgspec.convert(tree, Config, strict=False, str_keys=True, dec_hook=_from_text)
        kinds_of(config.state)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(error, env=env)) from None
    except ValueError as error:
        raise ConfigError(f"setting 'state.kinds': {error}") from None
    _check_numbers(config)
    _check_addresses(config.broker)
    warn_about_private_key(config.kafka.key_file or config.kafka.cert_file)
    return config


def _check_numbers(settings: msgspec.Struct, section: str = "") -> None:
    """Refuse NaN, which passes every comparison with a limit or none. Raises ConfigError."""
    for name, value in msgspec.structs.asdict(settings).items():
        if isinstance(value, msgspec.Struct):
            _check_numbers(value, f"{section}{name}.")
        elif isinstance(value, float) and value != value:
            raise ConfigError(f"setting '{section}{name}': nan is not a number")


def _check_addresses(broker: str) -> None:
    """Refuse an address that the Kafka clients cannot parse. Raises ConfigError."""
    for address in broker.split(","):
        if "/" in address:
            raise ConfigError(
                f"setting 'broker': {address.strip()!r} is no address of Kafka, which is HOST:PORT without a scheme or "
                f"a path"
            )
        host, colon, port = address.strip().rpartition(":")
        if not colon or port.endswith("]"):  # the clients have a default port
            host, port = address.strip(), "9092"
        try:
            host.encode("idna")
            if not 0 < int(port) < 1 << 16:
                raise ValueError
        except ValueError:
            raise ConfigError(
                f"setting 'broker': {address.strip()!r} is not HOST:PORT with a port from 1 to 65535"
            ) from None


def _with_built_in_kinds(tree: dict[str, Any]) -> None:
    """Complete the settings of a built-in kind from its defaults; a custom kind has none and must be complete."""
    state = tree.setdefault("state", {})
    configured = state.setdefault("kinds", {}) if isinstance(state, dict) else None
    if not isinstance(configured, dict):
        return
    kinds = {name: msgspec.structs.asdict(kind) for name, kind in KINDS.items()}
    for name, own in configured.items():
        kinds[name] = kinds.get(name, {}) | own if isinstance(own, dict) else own
        try:
            msgspec.convert(kinds[name], Kind, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(_explain(error, f"state.kinds.{name}")) from None
    state["kinds"] = kinds


def _with_prefix(tree: dict[str, Any]) -> None:
    """Put `topics.prefix` before the names that are not set."""
    topics = tree.get("topics")
    prefix = topics.get("prefix") if isinstance(topics, dict) else None
    if not isinstance(topics, dict) or not isinstance(prefix, str):
        return
    for field in msgspec.structs.fields(TopicSettings):
        if field.type is str and field.name != "prefix":
            topics.setdefault(field.name, prefix + field.default)
    tree.setdefault("group", prefix + Config().group)


def _from_text(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise TypeError(f"expected `{kind.__name__}`, got `{type(value).__name__}`")


def _from_file(path: Path | None, env: Mapping[str, str]) -> dict[str, Any]:
    explicit = path or (Path(env["ANABRANCH_CONFIG"]) if "ANABRANCH_CONFIG" in env else None)
    file = explicit or Path(CONFIG_FILE)
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
        warn_about_secrets(file, tree)
        return tree
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
    except UnicodeEncodeError:  # RocksDB and Kafka accept UTF-8 only
        raise ConfigError(f"{source}: {str(value)!r} is not UTF-8") from None
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{source}: {key!r} is a value, not a section")
    tree[keys[-1]] = value


def _meant_by(dotted: str) -> str:
    """The setting that an unknown name probably stands for: the nearest one, or one of its name in another section."""
    names = list(setting_names())
    near = difflib.get_close_matches(dotted, names, 1, 0.8)
    elsewhere = [name for name in names if name.rpartition(".")[2] == dotted.rpartition(".")[2]]
    return (near or elsewhere or difflib.get_close_matches(dotted, names, 1) or [""])[0]


def _explain(error: msgspec.ValidationError, inside: str = "", env: Mapping[str, str] = {}) -> str:
    """msgspec's "Object contains unknown field `x` - at `$.a`" with the key as a person writes it.

    A key from the environment is named by its variable: Kubernetes sets variables of its own.
    """
    problem, _, where = str(error).partition(" - at ")
    section = (inside + where.strip("`").removeprefix("$")).lstrip(".")
    if problem.startswith("Object contains unknown field"):
        key = problem.split("`")[1]
        dotted = f"{section}.{key}" if section else key
        variable = ENV_PREFIX + dotted.replace(".", "__").upper()
        meant = _meant_by(dotted)
        variable = next((name for name in env if name == variable or name.startswith(f"{variable}__")), "")
        by = f"environment variable {variable}: " if variable else ""
        if meant and by:
            meant = f" (did you mean {ENV_PREFIX + meant.replace('.', '__').upper()}?)"
        elif meant:
            meant = f" (did you mean {meant!r}?)"
        return f"{by}unknown setting {dotted!r}{meant}: docs/configuration.md lists all settings"
    choices = f", it is one of {', '.join(choices_of(section))}" if problem.startswith("Invalid enum value") else ""
    return f"setting {section!r}: {problem[0].lower()}{problem[1:]}{choices}"
