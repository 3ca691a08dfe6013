"""Withdraw items, and list those that are withdrawn."""

import asyncio

import numpy as np

from state.errors import StateError
from state.titles import Titles
from state.view import View
from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.click_values import Invalid, read_identifier
from stream.kafka.withdrawals import publish_withdrawal


def withdraw_item(config: Config, item: str, *, withdrawn: bool) -> None:
    """Recommend the item to nobody from now on, or to everybody again. Raises AnabranchError."""
    try:
        read_identifier(item, "item")
    except Invalid as error:
        raise AnabranchError(f"{error}: no event can name it") from None
    asyncio.run(publish_withdrawal(config, item, withdrawn=withdrawn))


def withdrawn_items(config: Config) -> list[str]:
    """Ids of the withdrawn items, as the worker of this data directory has read them. Raises AnabranchError."""
    try:
        titles = Titles(config.data, read_only=True)
    except StateError:
        raise AnabranchError(
            f"no worker has read the topic {config.topics.items!r} into {config.data} yet: start one with this --data, "
            f"or name another data directory"
        ) from None
    try:
        return sorted(identifier.decode() for identifier in titles.withdrawn_ids)
    finally:
        titles.close()


def is_known(config: Config, item: str) -> bool | None:
    """Whether the state in the data directory has an event of the item; None if there is no state."""
    with View(config.data, config.topics.clicks, config.state) as view:
        if not view.partitions:
            return None
        return view.item_ids(np.array([view.ids.of(item)], np.uint64))[0] is not None
