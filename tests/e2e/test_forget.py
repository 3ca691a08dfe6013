"""A user is forgotten by the command, to the last byte, and stays forgotten in a state that is rebuilt."""

import json
import shutil

import numpy as np
import pytest

from state.view import View
from stream.config import Config
from tests.e2e.conftest import anabranch, read_all, succeed, until

pytestmark = pytest.mark.broker

USER = "ann-who-leaves"


def steps_of(config: Config, user: str) -> int:
    with View(config.data, config.topics.clicks, config.state) as view:
        return len(view.sequences(np.array([view.ids.of(user)], np.uint64)).steps)


def test_the_command_forgets_a_user_and_proves_it(config, producer):
    def click(user: str, item: str) -> None:
        value = json.dumps({"user": user, "item": item}).encode()
        producer.send(config.topics.clicks, key=user.encode(), value=value)

    def newest() -> dict[str, bytes | None]:
        return {r.key.decode(): r.value for r in read_all(config, config.topics.recommendations)}

    with anabranch(config, "worker"):
        for n in range(30):
            click(USER, f"item-{n % 5}")
            click("bob", f"item-{n % 3}")
        producer.flush()
        until(lambda: steps_of(config, USER) == steps_of(config, "bob") == 30 and newest().keys() == {USER, "bob"})
        report = json.loads(succeed(config, "forget", USER, "--json").stdout)
        assert report["found"] == []
        assert report["searched"]["records"] > 10
        assert newest()[USER] is None, "a tombstone replaces the recommendation"
        assert newest()["bob"]
        assert (steps_of(config, USER), steps_of(config, "bob")) == (0, 30)
        click(USER, "item-new")
        producer.flush()
        until(lambda: steps_of(config, USER) == 1 and newest()[USER])

    shutil.rmtree(config.data)
    with anabranch(config, "worker"):
        until(lambda: steps_of(config, "bob") == 30 and steps_of(config, USER) == 1)
