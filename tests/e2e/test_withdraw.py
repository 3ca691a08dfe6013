"""An item is withdrawn for everybody at once, by the command or by the shop's message, and brought back."""

import json
import time
from typing import Any

import pytest

from stream.config import Config
from tests.e2e.conftest import anabranch, read_all, succeed, until

pytestmark = pytest.mark.broker

FOLLOWS_WITHIN_S = 1.0


def command(config: Config, *arguments: str) -> dict[str, Any]:
    return json.loads(succeed(config, *arguments, "--json").stdout)


def test_a_withdrawn_item_is_recommended_to_nobody_also_after_a_restart(config, producer):
    asked = 0

    def items_for(user: str) -> set[str]:
        nonlocal asked
        asked += 1
        producer.send(config.topics.requests, json.dumps({"user": user, "id": str(asked)}).encode(), user.encode())
        producer.flush()
        found = until(
            lambda: [
                m for r in read_all(config, config.topics.replies) if (m := json.loads(r.value))["id"] == str(asked)
            ]
        )
        return {item["item"] for item in found[0]["items"]}

    def click(user: str, item: str) -> None:
        producer.send(config.topics.clicks, json.dumps({"user": user, "item": item}).encode(), user.encode())
        producer.flush()

    def answered() -> set[bytes]:
        return {record.key for record in read_all(config, config.topics.recommendations)}

    with anabranch(config, "worker"):
        for n in range(12):
            click(f"u{n}", f"item-{n % 3}")
        until(lambda: len(answered()) == 12)  # requests from before the start are not answered
        until(lambda: items_for("nobody") == {"item-0", "item-1", "item-2"})  # their list may be a second old

        assert command(config, "withdraw", "item-1") == {"item": "item-1", "withdrawn": True, "known": True}
        time.sleep(FOLLOWS_WITHIN_S)
        assert items_for("nobody") == {"item-0", "item-2"}
        assert command(config, "recommend", "nobody")["items"][0]["item"] != "item-1"
        value = b'{"item": "item-2", "withdrawn": true}'
        producer.send(config.topics.items, value, b"withdrawn:item-2")
        until(lambda: items_for("nobody") == {"item-0"})
        assert command(config, "withdraw", "--list") == {"withdrawn": ["item-1", "item-2"]}

    with anabranch(config, "worker"):
        click("late", "item-0")
        until(lambda: b"late" in answered())
        assert items_for("nobody") == {"item-0"}
        command(config, "withdraw", "item-1", "--undo")
        until(lambda: items_for("nobody") == {"item-0", "item-1"})
