"""Three workers are restarted one after the other, as an upgrade does it, while clicks come at a steady rate.

`python -m tests.crash.rolling --help`. Each worker is a process of its own with its own data directory, and all share
one artifact store. A worker gets SIGTERM, is started again, and the next one has its turn when the one before answers
for all of its partitions. In the end a worker on a new machine takes over everything, and its state is compared with
the log.
"""

import argparse
import bisect
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from kafka import KafkaConsumer, TopicPartition

from stream.config import Config, WorkerSettings
from stream.kafka.connection import connection
from stream.worker.status_file import read
from tests.crash.kills import fresh, settle
from tests.crash.lives import fork_server
from tests.crash.membership import CHECKPOINT_EVERY_S, differences_up_to_its_offset, load
from tests.crash.oracle import Found, Truth, compare, fold
from tests.e2e.conftest import command_line, flags_of, read_all, until

WORKERS = 3
READY_WITHIN_S = 120.0
STEADY_S = 5.0
"""Time before the first restart and after the last one, in which nothing happens but clicks."""


class Restart(NamedTuple):
    """One restart, in seconds."""

    worker: str
    stopping_s: float
    """From SIGTERM to the end of the process."""
    starting_s: float
    """From its start until every worker answers for all of its partitions, and together they own all."""


class Wait(NamedTuple):
    """How long a click waited for the first recommendation that reflects it."""

    s: float
    partition: int
    offset: int
    began_s: float
    """When it was published, in seconds after the first click."""


class Report(NamedTuple):
    """The restarts, the waits, and the differences that were found."""

    restarts: list[Restart]
    waits: list[Wait]
    """Of every click, the shortest first."""
    unanswered: int
    truth: Truth
    found: Found
    behind: list[str]
    """Differences between the log and the stores of the three workers, up to the offset of each store."""

    def wait_s(self, share: float) -> float:
        """The wait that this share of the clicks did not exceed."""
        return self.waits[min(int(share * len(self.waits)), len(self.waits) - 1)].s


class Follower(threading.Thread):
    """Notes when each recommendation can be read."""

    def __init__(self, config: Config) -> None:
        super().__init__(daemon=True)
        self._config, self._done = config, threading.Event()
        self.read: list[tuple[float, str, int, int]] = []
        """Time, user, partition and offset; a tombstone has the offset -1."""

    def run(self) -> None:
        """Read until `stop`."""
        consumer = KafkaConsumer(**connection(self._config), enable_auto_commit=False, group_id=None)
        topic = self._config.topics.recommendations
        with contextlib.closing(consumer):
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            while not self._done.is_set():
                for records in consumer.poll(timeout_ms=100).values():
                    now = time.time()
                    for record in records:
                        message = msgspec.json.decode(record.value) if record.value else {"partition": -1, "offset": -1}
                        self.read.append((now, record.key.decode(), message["partition"], message["offset"]))

    def stop(self) -> None:
        """Read no more."""
        self._done.set()
        self.join()


class Workers:
    """The processes."""

    def __init__(self, config: Config, env: dict[str, str], *, static: bool) -> None:
        self._config = config
        self._env, self._static = env, static
        self.homes = [msgspec.structs.replace(config, data=config.data / str(n)) for n in range(WORKERS)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[int, float] = {}

    def start(self, number: int) -> None:
        """Start a worker."""
        home, name = self.homes[number], f"shop-{number}"
        home.data.mkdir(parents=True, exist_ok=True)
        member = {"ANABRANCH_WORKER__GROUP_INSTANCE_ID": name} if self._static else {}
        self._started[number] = time.time()
        with (home.data / "worker.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(
                command_line(home, "worker", "--instance", name),
                stdout=log, stderr=log, env=os.environ | flags_of(home) | self._env | member,
            )  # fmt: skip

    def stop(self, number: int) -> None:
        """Ask a worker to end, and wait for it."""
        process = self._processes.pop(number)
        process.terminate()
        assert process.wait(30) == 0, self.log(number)

    def stop_all(self) -> None:
        """Ask all of them to end."""
        for number in list(self._processes):
            self.stop(number)

    def wait_until_ready(self) -> None:
        """Wait until every partition is owned, and answered for."""
        until(self._ready, READY_WITHIN_S)

    def _ready(self) -> bool:
        owned: list[int] = []
        for number, process in self._processes.items():
            assert process.poll() is None, self.log(number)
            status = read(self.homes[number].data)
            if status is None or status.ts < 1000 * self._started[number] or not (status.confirmed and status.joined):
                return False
            if set(status.phases.values()) - {"answering"}:
                return False
            owned += status.phases
        return sorted(owned) == list(range(self._config.topics.partitions))

    def log(self, number: int) -> str:
        """The end of a worker's log."""
        return (self.homes[number].data / "worker.log").read_text()[-3000:]


def restart_all(config: Config, rounds: int, seed: int, per_s: int, *, static: bool) -> Report:
    """Restart each worker `rounds` times under load. Then run the last worker, and compare."""
    env = {"ANABRANCH_ARTIFACTS": str(config.data / "artifacts"), "ANABRANCH_CHECKPOINTS__EVERY_S": CHECKPOINT_EVERY_S}
    workers, follower = Workers(config, env, static=static), Follower(config)
    restarts = []
    follower.start()
    with stopping(workers):
        for number in range(WORKERS):
            workers.start(number)
            workers.wait_until_ready()
        with load(config, seed, per_s):
            time.sleep(STEADY_S)
            for number in [*range(WORKERS)] * rounds:
                began = time.monotonic()
                workers.stop(number)
                stopped = time.monotonic()
                workers.start(number)
                workers.wait_until_ready()
                restarts.append(Restart(f"shop-{number}", stopped - began, time.monotonic() - stopped))
            time.sleep(STEADY_S)
        time.sleep(STEADY_S)
    follower.stop()
    log = read_all(config, config.topics.clicks)
    truth = fold(log, config)
    waits, unanswered = waits_of(log, truth, follower)
    last = msgspec.structs.replace(config, data=config.data / "last")
    with fork_server(config.data / "fork-server.log") as lives:
        settle(lives, last, **env)
    behind = [line for home in workers.homes for line in differences_up_to_its_offset(home, log)]
    return Report(restarts, waits, unanswered, truth, compare(last, truth), behind)


@contextlib.contextmanager
def stopping(workers: Workers) -> Iterator[None]:
    """End the workers with the block."""
    try:
        yield
    finally:
        workers.stop_all()


def waits_of(log: list, truth: Truth, follower: Follower) -> tuple[list[Wait], int]:  # type: ignore[type-arg]
    """How long each applied click waited, and how many were never answered. Clicks of forgotten users are left out."""
    published = {(record.partition, record.offset): record.timestamp / 1000 for record in log}
    answers: dict[tuple[str, int], list[tuple[int, float]]] = defaultdict(list)
    for at, user, partition, offset in follower.read:
        answers[user, partition].append((offset, at))
    first, unanswered, waits = min(published.values()), 0, []
    for number, partition in truth.logs.items():
        for user, lines in partition.lines.items():
            # The first time that an answer up to an offset could be read: offsets ascend, a repeat comes later.
            seen = sorted(answers[user, number])
            offsets = [offset for offset, _ in seen]
            earliest = [at for _, at in seen]
            for n in reversed(range(len(earliest) - 1)):
                earliest[n] = min(earliest[n], earliest[n + 1])
            for line in lines:
                began = published[number, line.offset]
                place = bisect.bisect_left(offsets, line.offset)
                if place == len(offsets):
                    unanswered += 1
                else:
                    waits.append(Wait(max(earliest[place] - began, 0.0), number, line.offset, began - first))
    return sorted(waits), unanswered


def main() -> None:
    """Print the report; exit 1 where anything differs, or a click waited longer than allowed."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--rounds", type=int, default=1, help="how often each worker is restarted")
    parse.add_argument("--per-s", type=int, default=200, help="clicks published a second")
    parse.add_argument("--partitions", type=int, default=6)
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument("--broker", choices=("embedded", "kafka"), default="embedded")
    parse.add_argument("--static", action="store_true", help="with worker.group_instance_id")
    parse.add_argument("--within-s", type=float, default=10.0, help="longest wait that is allowed")
    parse.add_argument("--keep-logs", type=Path, help="a folder for the logs of the workers")
    asked = parse.parse_args()
    if asked.static and asked.broker == "embedded":
        sys.exit("the embedded broker keeps no partitions for a static member: --static needs --broker kafka")
    with fresh(asked.broker, asked.partitions) as made:
        config = msgspec.structs.replace(made, worker=WorkerSettings())
        report = restart_all(config, asked.rounds, asked.seed, asked.per_s, static=asked.static)
        if asked.keep_logs:
            asked.keep_logs.mkdir(parents=True, exist_ok=True)
            for log in config.data.glob("*/worker.log"):
                (asked.keep_logs / f"{log.parent.name}.log").write_bytes(log.read_bytes())
    found, waits = report.found, report.waits
    members = "static members" if asked.static else "members that leave"
    print(f"{asked.broker} broker, seed {asked.seed}, {asked.partitions} partitions, {WORKERS} workers, {members}")
    for restart in report.restarts:
        print(f"restart  {restart.worker}: ended in {restart.stopping_s:.1f} s, ready in {restart.starting_s:.1f} s")
    print(f"events   {report.truth.summary()}")
    print(f"lost     {found.lost:,}")
    print(f"doubled  {found.doubled:,}")
    print(f"differences in all, counts, roles, dead letters and last answers with them: {len(found.differences):,}")
    print(f"differences in stores left behind, each up to its own offset: {len(report.behind):,}")
    print(f"answers that never came: {report.unanswered:,}")
    shares = ", ".join(
        f"{name} {report.wait_s(share):.3f}" for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    )
    longest = waits[-1]
    print(f"seconds that a click waited, of {len(waits):,}: {shares}, longest {longest.s:.1f}")
    print(f"the longest: partition {longest.partition}, offset {longest.offset}, published at {longest.began_s:.1f} s")
    print("\n".join([*found.differences, *report.behind][:20]))
    sys.exit(bool(found.differences or report.behind or report.unanswered or longest.s > asked.within_s))


if __name__ == "__main__":
    main()
