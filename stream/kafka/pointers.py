"""The compacted `models` topic: which version is the champion, and which candidate is scored beside it.

The newest `moved_ts` wins, in whatever order pointers arrive. A champion that an operator pinned is replaced by an
operator only.
"""

import contextlib
import functools
import logging
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from state.artifact_store import shown
from state.signing import Keys
from stream.config import Config
from stream.errors import AnabranchError
from stream.files import json_file
from stream.kafka.exchange import within
from stream.kafka.messages import UNREADABLE, Pointer
from stream.kafka.publish import publish_one
from stream.kafka.rarely import Rarely
from stream.kafka.signing import refusal, signed
from stream.kafka.whole_topic import records_of
from stream.times import now_ms

log = logging.getLogger("anabranch.pointers")

MODEL_NAME = "create"
LAST_POINTERS = "pointers.json"
VERSION = re.compile(r"([0-9]{6,18})?")
"""The version that a pointer names. It becomes part of a path."""
MAX_MOVED_TS = 1 << 60
"""Of two pointers with this time the one that arrives later wins: no pointer is the last one for ever."""


class Pointers(NamedTuple):
    """The champion, and the candidate that is scored beside it."""

    champion: Pointer | None = None
    candidate: Pointer | None = None

    @property
    def scored(self) -> Pointer | None:
        """The candidate; None if there is none, or it is the champion itself."""
        candidate = self.candidate
        served = self.champion.version if self.champion else None
        return candidate if candidate is not None and candidate.version not in ("", served) else None


async def read_pointers(config: Config) -> Pointers:
    """The pointers in the topic now, read without a consumer group; none before the first version.

    If the topic is missing or empty (an embedded broker loses its topics), the pointers that this data directory last
    followed. Raises BrokerUnavailable.
    """
    named = await read_named(config)
    return named if named.champion else read_last_pointers(config.data)


async def read_named(config: Config) -> Pointers:
    """The pointers in the topic now, and nothing else. Raises BrokerUnavailable."""
    return await within(config, "the pointers to the serving versions", _read_pointers(config))


async def _read_pointers(config: Config) -> Pointers:
    topic, pointers, refused = config.topics.models, Pointers(), list[str]()
    async for record in records_of(config, topic):
        pointer, why = check_pointer(record.value, config.kafka.signing_keys)
        pointers = apply_pointer(pointers, pointer)
        refused += [why] if why else []
    if refused:
        log.warning("topic %s: %d pointers are not followed, the last one: %s", topic, len(refused), refused[-1])
    return pointers


def decode_pointer(value: bytes | None, keys: Keys = (), rarely: Rarely | None = None) -> Pointer | None:
    """The pointer in a message; None for a tombstone or any other message, and for one that is refused.

    `rarely` bounds the log lines of a process that follows the topic.
    """
    pointer, why = check_pointer(value, keys)
    if why is not None and (rarely is None or rarely.may_log()):
        log.warning("a pointer is not followed: %s", why)
    return pointer


def check_pointer(value: bytes | None, keys: Keys) -> tuple[Pointer | None, str | None]:
    """The pointer in a message, and why it is refused: one of the two is None, and both for any other message."""
    try:
        pointer = msgspec.json.decode(value, type=Pointer) if value else None
    except UNREADABLE:
        return None, None
    if pointer is None or pointer.name != MODEL_NAME:
        return None, None
    why = refusal(pointer, keys)
    if not (VERSION.fullmatch(pointer.version) and 0 <= pointer.moved_ts <= MAX_MOVED_TS):
        why = "no version has such a name or time"
    return (None, f"version {pointer.version[:80]!r}: {why}") if why else (pointer, None)


def apply_pointer(pointers: Pointers, arrived: Pointer | None) -> Pointers:
    """The pointers to follow after `arrived`; an older one changes nothing."""
    if arrived is None:
        return pointers
    if arrived.role == "candidate":
        return pointers._replace(candidate=_newer(pointers.candidate, arrived))
    return pointers._replace(champion=_newer(pointers.champion, arrived))


def _newer(current: Pointer | None, arrived: Pointer) -> Pointer:
    if current is not None and arrived.moved_ts <= current.moved_ts and arrived.moved_ts < MAX_MOVED_TS:
        return current
    # The trainer published it before it received the operator's pin.
    if current is not None and current.pinned and arrived.by == "trainer":
        return current
    return arrived


def write_last_pointers(data: Path, pointers: Pointers) -> None:
    """Write the pointers beside the state, for commands that reach no broker. A full disk is no error."""
    with contextlib.suppress(OSError):
        json_file.write(data / LAST_POINTERS, [p for p in pointers if p is not None])


def read_last_pointers(data: Path) -> Pointers:
    """The pointers that this data directory's worker last followed."""
    last = json_file.read(data / LAST_POINTERS, list[Pointer]) or []
    return functools.reduce(apply_pointer, last, Pointers())


def pointer_to(
    config: Config,
    version: str,
    after: Pointer | None,
    *,
    role: Literal["champion", "candidate"] = "champion",
    pinned: bool = False,
    by: Literal["trainer", "operator"] = "operator",
) -> Pointer:
    """A pointer to a version in the artifact store; it is newer than `after`, also if the clock went back.

    Raises ArtifactError if there is no such version.
    """
    moved_ts = max(now_ms(), ts_after(after) if after else 0)
    from model.learning.manifests import manifest_sha256

    keys = config.kafka.signing_keys
    sha256 = manifest_sha256(config.artifacts_url, MODEL_NAME, version, keys) if version else ""
    return Pointer(MODEL_NAME, version, shown(config.artifacts_url), sha256, moved_ts, role, pinned, by)


def ts_after(pointer: Pointer) -> int:
    """The earliest time of a pointer that replaces this one."""
    return min(pointer.moved_ts + 1, MAX_MOVED_TS)


def key_of(pointer: Pointer) -> bytes:
    """The pointer's key in the compacted topic."""
    return (pointer.name if pointer.role == "champion" else f"{pointer.name}-{pointer.role}").encode()


async def roll_back(config: Config, champion: Pointer | None, version: str | None) -> Pointer:
    """Pin a version (None: the champion's parent) and publish the pointer. Raises AnabranchError."""
    from model.learning.manifests import list_versions

    versions = {m.version: m for m in list_versions(config.artifacts_url, MODEL_NAME, config.kafka.signing_keys)}
    if version is None:
        serving = versions.get(champion.version) if champion else None
        if serving is None or serving.parent is None:
            raise AnabranchError(
                "there is no version before the serving one to roll back to: `anabranch models` lists all versions"
            )
        version = serving.parent
    check_version(version, versions)
    return await publish_pointer(config, pointer_to(config, version, champion, pinned=True))


def check_version(version: str, versions: Collection[str]) -> None:
    """Raise AnabranchError if there is no such version."""
    if version not in versions:
        raise AnabranchError(f"there is no version {version!r} to serve: `anabranch models` lists all versions")


async def publish_pointer(config: Config, pointer: Pointer) -> Pointer:
    """Sign the pointer and send it to every worker and trainer. Raises BrokerUnavailable, TopicMismatch."""
    pointer = signed(pointer, config.kafka.signing_keys)
    await publish_one(config, config.topics.models, key_of(pointer), msgspec.json.encode(pointer), "the pointer")
    return pointer
