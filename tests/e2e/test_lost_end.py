"""A broker that comes back without its newest records, as after an unclean election, under a running worker."""

import json
import struct
from pathlib import Path

import pytest

from state.progress import Progress
from state.view import View
from stream.config import Config
from tests.conftest import with_topics
from tests.e2e.conftest import anabranch, read_all, until
from tests.e2e.test_logs import click, send
from tests.kafka import missing, restartable_broker

pytestmark = [pytest.mark.broker, pytest.mark.faults]


def cut(log: Path, records: int) -> None:
    """Remove the newest batches, each of one record, from the only segment of a partition's log."""
    [segment] = log.glob("*.log")
    data, starts, at = segment.read_bytes(), [], 0
    while at + 12 < len(data) and (size := struct.unpack(">i", data[at + 8 : at + 12])[0]):
        starts.append(at)
        at += 12 + size
    segment.write_bytes(data[: starts[-records]])
    for index in [*log.glob("*.index"), *log.glob("*.timeindex"), *log.glob("*.snapshot")]:
        index.unlink()


def progress_of(config: Config) -> Progress:
    with View(config.data, config.topics.clicks, config.state) as view:
        return view.partitions[0].read_progress() if 0 in view.partitions else Progress()


def test_a_worker_keeps_what_the_broker_lost_and_applies_what_comes_at_the_same_offsets(tmp_path):
    if reason := missing():
        pytest.skip(reason)

    def publish(config: Config, *users: str) -> None:
        async def work(producer) -> None:
            for user in users:
                await producer.send_and_wait(config.topics.clicks, click(user), key=user.encode())

        send(config, work)

    with restartable_broker() as broker:
        config = with_topics(broker.address, tmp_path / "data", partitions=1)
        with anabranch(config, "worker") as worker:
            publish(config, "ann", "bob", "cid", "dan")
            until(lambda: len(read_all(config, config.topics.recommendations)) == 4)
            broker.kill()
            cut(broker.folder / "log" / f"{config.topics.clicks}-0", 2)
            broker.start()
            until(lambda: progress_of(config).truncated == 2)
            publish(config, "eve")
            until(lambda: progress_of(config).applied == 5)
            newest = until(lambda: len(found := read_all(config, config.topics.recommendations)) == 5 and found[-1])
            assert worker.poll() is None
    assert (json.loads(newest.value)["user"], json.loads(newest.value)["offset"]) == ("eve", 4)
    assert (progress_of(config).users, progress_of(config).log_offset, progress_of(config).lost) == (5, 3, 0)
    assert not list(config.data.glob("aside-*"))
    log = (config.data / "worker.log").read_text()
    assert "partition 0: the log has lost its newest records, offsets 2 to 3, which were applied before" in log
    assert "Traceback" not in log
