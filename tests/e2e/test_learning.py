"""Commands of an operator while worker and trainer run: retrain, rollback, and a candidate in shadow."""

import json
import os
import signal
import subprocess

import pytest

from state.view import View
from stream.kafka.pointers import read_last_pointers
from stream.operate import report
from tests.e2e.conftest import anabranch, command_line, flags_of, read_all, succeed, until

pytestmark = [pytest.mark.broker, pytest.mark.slow]

QUICK_TRAINING = {
    "ANABRANCH_TRAINING__EPOCHS": "400",  # long enough to be interrupted
    "ANABRANCH_TRAINING__LAST_EPOCHS": "1",
    "ANABRANCH_TRAINING__WARM_UP_EPOCHS": "1",
    "ANABRANCH_TRAINER__EVERY_EVENTS": "100000",
}


def test_retrain_rollback_and_shadow_reach_running_processes(config, producer):
    env = {**os.environ, **flags_of(config)}

    def run(*arguments: str) -> dict:
        return json.loads(succeed(config, *arguments, "--json").stdout)

    def status() -> report.Status:
        with View(config.data, config.topics.clicks, config.state) as view:
            return report.status(config, view, None, read_last_pointers(config.data))

    def click(count: int) -> None:
        for n in range(count):
            user = f"user-{n % 20}"
            value = {"user": user, "item": f"item-{n % 7}", "ts": 1_600_000_000_000 + n}
            producer.send(config.topics.clicks, key=user.encode(), value=json.dumps(value).encode())
        producer.flush()

    with anabranch(config, "worker"), anabranch(config, "trainer", env=QUICK_TRAINING):
        click(300)
        until(lambda: "trainer ready" in (config.data / "trainer.log").read_text())
        until(lambda: status().events.applied == 300)
        following = subprocess.Popen(command_line(config, "retrain", "--wait"), env=env, stderr=subprocess.DEVNULL)
        until(lambda: read_all(config, config.topics.command_replies))
        following.send_signal(signal.SIGINT)
        assert following.wait(20) == 130
        until(lambda: status().model.version == "000001")

        click(200)
        shadow = run("retrain", "--wait", "--shadow")
        assert shadow["status"] == "kept"
        assert "scored beside the champion, not served" in shadow["message"]
        until(lambda: "scoring version 000002" in (config.data / "worker.log").read_text())
        compared = until(lambda: click(20) or ((c := status().comparison).candidate.events and c))
        assert compared.mode == "shadow"
        assert compared.champion.events == compared.candidate.events

        assert run("rollback", "000002")["pinned"]
        until(lambda: status().model.version == "000002")
        assert "000002 is pinned until `anabranch rollback --unpin`" in run("retrain", "--wait")["message"]
        assert not run("rollback", "--unpin")["pinned"]
        until(lambda: not status().model.pinned)
        assert status().trainer.doing == "waiting"
    assert status().trainer.doing == "not running"
