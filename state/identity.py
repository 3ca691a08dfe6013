"""The identity of a store: the log it was built from, the layout of its records, and the key of its ids' hashes.

A store of another log, layout or key is refused, never read as if it were the right one.
"""

from pathlib import Path

import msgspec

from state.errors import EarlierLayout, Repartitioned, WrongLayout, WrongLog
from state.id_hash import IdHash

LAYOUT = 4
"""Version of the records on disk that this code writes."""
KEYED_LAYOUT = 5
"""The same with ids hashed by a key: code that knows no key refuses such a store, and does not mix hashes."""
EARLIER_LAYOUTS = (2, 3)
"""Without and with a key: rows have fewer counts, all other records are the same (`state/upgrade.py`)."""
FIRST_LAYOUT = 1
"""Version of stores whose identity does not name one."""


class Identity(msgspec.Struct, frozen=True):
    """The log a store was built from, and the settings that fix the layout of its records."""

    cluster: str
    topic: str
    partition: int
    partitions: int
    """Partitions of the topic. With another number, users' clicks arrive in other partitions than their history."""
    sequence_events: int
    neighbours_per_item: int
    topic_id: str = ""
    """The id of the topic in its cluster; a topic recreated under its name has another. Empty where it is unknown."""
    layout: int = LAYOUT
    """Version of the records on disk."""
    id_key: str = ""
    """The secret key of the hashes of ids; empty for a store from before the key."""

    def __repr__(self) -> str:
        shown = [name for name in self.__struct_fields__ if name != "id_key"]
        fields = [f"{name}={getattr(self, name)!r}" for name in shown]
        return f"Identity({', '.join(fields)}, {IdHash(self.id_key)!r})"


def check_identity(stored: Identity | None, wanted: Identity, path: Path) -> None:
    """Check that the store at `path` is of the wanted log, and of a layout that can be read or upgraded.

    Raises WrongLog, WrongLayout or Repartitioned.
    """
    if stored is None:
        return
    if stored.layout not in (LAYOUT, KEYED_LAYOUT, *EARLIER_LAYOUTS):
        raise WrongLayout(
            f"{path} was written by another version of anabranch: it has layout {stored.layout}, this version reads "
            f"the layouts {min(EARLIER_LAYOUTS)} to {KEYED_LAYOUT}. Run that version, or move the directory away "
            f"(mv {path} {path}.old): the worker then rebuilds the state from the log"
        )
    was_key, now_key = IdHash(stored.id_key).fingerprint, IdHash(wanted.id_key).fingerprint
    if was_key != now_key:
        raise WrongLayout(another_key(path, was_key, now_key))
    for key in ("sequence_events", "neighbours_per_item"):
        was, now = getattr(stored, key), getattr(wanted, key)
        if was != now:
            raise WrongLayout(
                f"{path} was built with state.{key} = {was}, but the configuration has {now}. The setting fixes the "
                f"size of the records on disk, so they cannot be read. Set it back to {was}, or rebuild the state with "
                f"`anabranch replay --from earliest`"
            )
    for key in ("topic", "partition", "cluster", "topic_id"):
        was, now = getattr(stored, key), getattr(wanted, key)
        if was != now and not (key == "topic_id" and "" in (was, now)):
            recreated = " (the topic was deleted and created again)" if key == "topic_id" else ""
            raise WrongLog(
                f"{path} was built from {key} {was!r}, but this is {key} {now!r}{recreated}, so its offsets mean "
                f"nothing in this log and the state must be rebuilt from it"
            )
    if stored.partitions != wanted.partitions:
        raise Repartitioned(
            f"the topic {wanted.topic!r} had {stored.partitions} partitions when {path} was built and has "
            f"{wanted.partitions} now, so users' clicks arrive in other partitions than their history. Either write "
            f"all clicks by user to a new topic with {wanted.partitions} partitions and name it in topics.clicks, or "
            f"rebuild the state from the clicks in the log: `anabranch replay --from earliest`"
        )


def check_rows(stored: Identity | None, path: Path) -> None:
    """Check that the rows of the store at `path` have today's layout. Raises EarlierLayout."""
    if stored is not None and stored.layout in EARLIER_LAYOUTS:
        raise EarlierLayout(
            f"{path} was written by an earlier version of anabranch (layout {stored.layout}), and its rows of the "
            f"item-item graph lack counts that this version reads. A worker of this version counts them again from the "
            f"events in the store when it opens it, and logs how far it is. Start `anabranch worker` on this data "
            f"directory, and run this again then"
        )


def another_key(path: Path, was: str, now: str) -> str:
    """What a person does about a store with another key than the installation's, both as fingerprints."""
    return (
        f"{path} hashes its ids {with_key(was)}, and this installation {with_key(now)}, so none of its users would be "
        f"found. Move it away (mv {path} {path}.old): the worker then rebuilds the state from the log. If its key is "
        f"the right one, `anabranch init --id-key data` makes it the installation's"
    )


def with_key(fingerprint: str) -> str:
    """Words for a key's fingerprint in a sentence about how ids are hashed."""
    return f"with the key {fingerprint}" if fingerprint else "without a key"
