"""What a store was built from and with: a log of another identity, or another layout, is never read as its own."""

from pathlib import Path

import msgspec

from state.errors import Repartitioned, WrongLayout, WrongLog

LAYOUT = 2
"""Of the records on disk; another number is another layout."""
FIRST_LAYOUT = 1
"""Of stores that do not say theirs."""


class Identity(msgspec.Struct, frozen=True):
    """The log a store was built from, and the settings that fix the layout of its records."""

    cluster: str
    topic: str
    partition: int
    partitions: int
    """Of the topic: with another number, users' clicks arrive elsewhere than their history."""
    sequence_events: int
    neighbours_per_item: int
    topic_id: str = ""
    """What the cluster calls this topic and no other of the same name; empty where it cannot be known."""
    layout: int = LAYOUT
    """Of the records on disk."""


def check_identity(stored: Identity | None, wanted: Identity, path: Path) -> None:
    """Raise WrongLog or WrongLayout where a store was built from, or with, something else."""
    if stored is None:
        return
    if stored.layout != wanted.layout:
        raise WrongLayout(
            f"{path} was written by another version of anabranch (layout {stored.layout} on disk, this one writes "
            f"{wanted.layout}) and cannot be read: remove the directory to rebuild it from the log, or run that version"
        )
    for key in ("sequence_events", "neighbours_per_item"):
        was, now = getattr(stored, key), getattr(wanted, key)
        if was != now:
            raise WrongLayout(
                f"{path} was built with state.{key} = {was}, the configuration says {now}: records of the one "
                f"cannot be read as the other. Set it back to {was}, or rebuild with `anabranch replay --from earliest`"
            )
    for key in ("topic", "partition", "cluster", "topic_id"):
        was, now = getattr(stored, key), getattr(wanted, key)
        if was != now and not (key == "topic_id" and "" in (was, now)):
            recreated = " (the topic was deleted and made again)" if key == "topic_id" else ""
            raise WrongLog(
                f"{path} was built from {key} {was!r}, this is {key} {now!r}{recreated}: its offsets mean nothing here"
            )
    if stored.partitions != wanted.partitions:
        raise Repartitioned(
            f"the topic {wanted.topic!r} had {stored.partitions} partitions when {path} was built and has "
            f"{wanted.partitions} now: users' clicks arrive in other partitions than their history. Give them a new "
            f"topic with {wanted.partitions} partitions, written anew by user (topics.clicks names it), or begin again "
            f"from what the log holds: `anabranch replay --from earliest`"
        )
