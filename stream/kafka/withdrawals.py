"""Withdrawals of items: messages of the items topic, which every worker reads.

The topic is compacted. A withdrawal has a key of its own, so that neither a title replaces it, nor it a title.
"""

from typing import Any

import msgspec

from stream.config import Config
from stream.kafka.click_values import Invalid, read_identifier
from stream.kafka.messages import UNREADABLE, Withdrawal, encode
from stream.kafka.publish import publish_one

KEY_PREFIX = "withdrawn:"


def withdrawal_of(record: Any) -> Withdrawal | None:
    """The withdrawal in a message of the items topic; None for any other message. Raises Invalid for a broken one."""
    if not record.value:
        key = (record.key or b"").decode(errors="replace")
        return Withdrawal(key.removeprefix(KEY_PREFIX), withdrawn=False) if key.startswith(KEY_PREFIX) else None
    if b'"withdrawn"' not in record.value:
        return None
    try:
        withdrawal = msgspec.json.decode(record.value, type=Withdrawal)
        read_identifier(withdrawal.item, "item")
    except UNREADABLE as error:
        raise Invalid(f"no withdrawal: {error}") from None
    return withdrawal


async def publish_withdrawal(config: Config, item: str, *, withdrawn: bool) -> None:
    """Recommend the item to nobody from now on, or to everybody again. Raises BrokerUnavailable, TopicMismatch."""
    value = encode({"item": item, "withdrawn": withdrawn})
    await publish_one(config, config.topics.items, (KEY_PREFIX + item).encode(), value, "the withdrawal")
