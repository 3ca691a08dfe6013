"""How commands reach the state and the pointers, whether workers run or not."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from stream.cli.output import note
from stream.errors import AnabranchError

if TYPE_CHECKING:
    from state.errors import StateError
    from state.view import View
    from stream.config import Config
    from stream.kafka.messages import Pointer
    from stream.kafka.pointers import Pointers
    from stream.members.sightings import SeenMember

T = TypeVar("T")


def pointers_of(settings: "Config") -> "Pointers":
    """Champion and candidate: from the broker, or if none answers as this machine's worker last followed them."""
    from stream.errors import BrokerUnavailable
    from stream.kafka.pointers import read_last_pointers, read_pointers

    if settings.broker:
        try:
            return asyncio.run(read_pointers(settings))
        except BrokerUnavailable as error:
            note(f"{error}; going on with the versions that this machine's worker followed last")
    return read_last_pointers(settings.data)


def members_of(settings: "Config") -> "list[SeenMember] | None":
    """The members of the installation; None, and a note, where they cannot be read."""
    from stream.errors import BrokerUnavailable, TopicMismatch
    from stream.members.follow import read_members

    try:
        return asyncio.run(read_members(settings))
    except (BrokerUnavailable, TopicMismatch) as error:
        note(f"{error}; going on with what this data directory knows")
        return None


def serving(settings: "Config") -> "Pointer | None":
    """The champion, as `pointers_of` finds it."""
    return pointers_of(settings).champion


def here_or_asked(settings: "Config", user: str | None, here: "Callable[[View], T]", ask: "Callable[[], T]") -> "T":
    """What this data directory answers where its worker serves the user, else what the owner answers.

    Without a user all partitions count. Where no owner answers, this data directory does if it holds the user, and a
    note says so. Raises AnabranchError: neither does.
    """
    from state.view import partitions_in
    from stream.errors import BrokerUnavailable, TopicMismatch
    from stream.kafka.ask import NotAnswered
    from stream.operate.serves_here import holds_here, serves_here

    has_state = bool(partitions_in(settings.data, settings.topics.clicks))
    if not settings.broker or (has_state and serves_here(settings, user)):
        with view_of(settings) as view:
            return here(view)
    try:
        return ask()
    except (BrokerUnavailable, TopicMismatch, NotAnswered) as error:
        if not has_state or (isinstance(error, NotAnswered) and not holds_here(settings, user)):
            raise
        note(f"{error}; going on with what {settings.data} holds")
        with view_of(settings) as view:
            return here(view)


def view_of(settings: "Config", *, whole: bool = True, may_be_empty: bool = False) -> "View":
    """The state in the data directory, read only. Without `whole` unreadable partitions are left out.

    Raises AnabranchError if there is no state, or it cannot be read.
    """
    from state.view import View, partitions_in

    if not may_be_empty and not partitions_in(settings.data, settings.topics.clicks):
        raise AnabranchError(
            f"no state in {settings.data}: `anabranch up` or `anabranch worker` creates it; "
            f"--data names another directory, and --broker HOST:PORT asks the processes of all machines"
        )
    view = View(settings.data, settings.topics.clicks, settings.state)
    view.settle()
    unreadable = list(view.unreadable.values())
    if unreadable and (whole or not view.partitions):
        view.close()
        raise AnabranchError(explain_unreadable(unreadable[0]))
    return view


def explain_unreadable(error: "StateError") -> str:
    """Why a store cannot be read, and how it is repaired."""
    from state.errors import StoreUnreadable

    repair = "; a worker started on this --data moves it aside and restores it (docs/faults.md)"
    return f"{error}{repair if isinstance(error, StoreUnreadable) else ''}"
