"""How commands reach the state and the pointers, whether workers run or not."""

import asyncio
from typing import TYPE_CHECKING

from stream.cli.output import note
from stream.errors import AnabranchError

if TYPE_CHECKING:
    from state.errors import StateError
    from state.view import View
    from stream.config import Config
    from stream.kafka.messages import Pointer
    from stream.kafka.pointers import Pointers


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


def serving(settings: "Config") -> "Pointer | None":
    """The champion, as `pointers_of` finds it."""
    return pointers_of(settings).champion


def view_of(settings: "Config", *, whole: bool = True, may_be_empty: bool = False) -> "View":
    """The state in the data directory, read only. Without `whole` unreadable partitions are left out.

    Raises AnabranchError if there is no state, or it cannot be read.
    """
    from state.view import View, partitions_in

    if not may_be_empty and not partitions_in(settings.data, settings.topics.clicks):
        raise AnabranchError(
            f"no state in {settings.data}: `anabranch up` or `anabranch worker` creates it; "
            f"--data names another directory"
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
