"""From clicks to a table of examples, while worker and trainer run; a forgotten user is in none of its rows."""

import csv
import json
import os
import time

import pytest

from model.ranking.features import NAMES
from stream.kafka.pointers import read_last_pointers
from tests.e2e.conftest import anabranch, read_all, run, succeed, until

pytestmark = [pytest.mark.broker, pytest.mark.slow]

QUICK_TRAINING = {
    "ANABRANCH_TRAINING__EPOCHS": "1",
    "ANABRANCH_TRAINING__LAST_EPOCHS": "1",
    "ANABRANCH_TRAINING__WARM_UP_EPOCHS": "1",
    "ANABRANCH_TRAINER__EVERY_EVENTS": "100000",
}


def test_what_users_do_after_a_recommendation_is_exported_while_everything_runs(config, producer, tmp_path):
    table = tmp_path / "examples.csv"
    clock = int(time.time() * 1000) - 10_000_000

    def click(count: int) -> None:
        nonlocal clock
        for n in range(count):
            clock += 1_000
            user = f"user-{n % 20}"
            value = {"user": user, "item": f"item-{n % 7}", "ts": clock}
            producer.send(config.topics.clicks, key=user.encode(), value=json.dumps(value).encode())
        producer.flush()

    def examples() -> list[bytes]:
        return [record.key for record in read_all(config, config.topics.examples)]

    def sources() -> list[str]:
        records = sorted(read_all(config, config.topics.recommendations), key=lambda record: record.timestamp)
        return [json.loads(record.value)["source"] for record in records]

    def exported(*flags: str) -> list[dict[str, str]]:
        succeed(config, "examples", str(table), *flags)
        with table.open(newline="") as file:
            return list(csv.DictReader(file))

    env = {**os.environ, **QUICK_TRAINING}
    with anabranch(config, "worker"), anabranch(config, "trainer", env=env):
        click(1_500)
        until(lambda: "trainer ready" in (config.data / "trainer.log").read_text())
        succeed(config, "retrain", "--wait")
        until(lambda: (pointers := read_last_pointers(config.data)).champion and pointers)
        until(lambda: click(20) or time.sleep(0.5) or len(set(examples())) == 20)
        assert sources()[-1] == "ranker"
        # One step of the ranker online, and a cycle that learns from the topic.
        until(lambda: click(20) or time.sleep(0.5) or (config.data / "ranker-0-champion.safetensors").exists())
        succeed(config, "retrain", "--wait")
        assert sources()[-1] == "ranker"

        rows = exported()
        assert list(rows[0])[-len(NAMES) :] == list(NAMES)
        assert "user" not in rows[0]
        assert {row["item"] for row in rows} <= {f"item-{n}" for n in range(7)}
        taken = [row for row in rows if row["taken"] == "1"]
        assert len(taken) == len({row["example"] for row in rows}) >= 20
        assert all(int(row["moment"]) <= int(row["ts"]) for row in rows)

        succeed(config, "forget", "user-3")
        assert "user-3" not in {row["user"] for row in exported("--users")}
        assert "user-4" in {row["user"] for row in exported("--users", "--newest", "1000")}

    refused = run(config, "examples", "table.parquet")
    assert refused.returncode == 2
    assert "neither in .csv nor in .jsonl" in refused.stderr
