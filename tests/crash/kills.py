"""Kill a worker many times, then compare its state with the oracle: `make test-crash`, or with `--help`."""

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
from kafka import KafkaProducer

from state.errors import StateError
from state.view import View
from stream.config import Config
from stream.local.embedded_broker import EmbeddedBroker
from tests.conftest import with_topics
from tests.crash.clicks import EVERY_MS, Clicks, with_custom_kinds
from tests.crash.lives import ForkServer, Life, fork_server, is_running
from tests.crash.oracle import Found, Truth, compare, fold
from tests.e2e.conftest import flags_of, progress, read_all, until
from tests.kafka import kafka, missing

CRASH_POINTS = 7
AT_ANY_TIME = 0
GIVE_UP_S = 15.0
"""An idle worker does not reach its crash point: it is killed after this time, wherever it is."""
SETTLED_WITHIN_S = 240.0
WINDOW_S, DAYS = 2.5 * 86_400, 13
"""With expiry: the horizon, and the days of event time that the log covers, however many events there are."""


class Report(NamedTuple):
    """The kills, and the differences that were found."""

    kills: Counter[int]
    """By the crash point they came after; 0: at any time."""
    truth: Truth
    found: Found
    seconds: float


def with_short_session(config: Config) -> Config:
    """With a session timeout shorter than Kafka's default minimum: the group notices dead workers sooner."""
    worker = msgspec.structs.replace(config.worker, session_timeout_ms=1500, heartbeat_ms=500)
    return msgspec.structs.replace(config, worker=worker)


def worker_of(config: Config, instance: str = "0", **env: str) -> Life:
    """A worker on the configuration's data directory; its log is <data>/worker.log."""
    config.data.mkdir(parents=True, exist_ok=True)
    worker = config.worker
    return Life(
        ["worker", "--data", str(config.data), "--broker", config.broker, "--instance", instance],
        {
            **flags_of(config),
            "ANABRANCH_WORKER__POLL_MAX_EVENTS": "200",
            "ANABRANCH_WORKER__SESSION_TIMEOUT_MS": str(worker.session_timeout_ms),
            "ANABRANCH_WORKER__HEARTBEAT_MS": str(worker.heartbeat_ms),
            **env,
        },
        str(config.data / "worker.log"),
    )


def kill(config: Config, kills: int, events: int, seed: int, within_s: float = float("inf")) -> Report:
    """Publish a part of the events and let a worker die, again and again. Then run a last worker, and compare.

    After `within_s` there are no more kills; the last worker reads the rest of the events.
    """
    draw = random.Random(seed)
    started = time.monotonic()
    done: Counter[int] = Counter()
    producer = KafkaProducer(bootstrap_servers=config.broker)
    share = max(1, events // (kills + 1))
    expiring = config.state.window_s > 0
    clicks = Clicks(config, seed, DAYS * 86_400_000 // events if expiring else EVERY_MS)
    with contextlib.closing(producer), fork_server(config.data / "fork-server.log") as lives:
        for number in range(kills):
            if time.monotonic() - started > within_s:
                break
            clicks.publish(producer, share)
            point = number % (CRASH_POINTS + 1)
            mortal = msgspec.structs.replace(
                worker_of(config),
                crash_point=point,
                count=draw.randint(200, 4000) if point == AT_ANY_TIME else draw.randint(1, 2),
            )
            reached = lives.run_to_crash(mortal, GIVE_UP_S)
            done[point if reached else AT_ANY_TIME] += 1
        clicks.publish(producer, events - clicks.published)
        settle(lives, config)
        if expiring:  # events that expire with a batch are removed with the next one
            clicks.settle(producer)
            settle(lives, config)
        truth = fold(read_all(config, config.topics.clicks), config)
    return Report(done, truth, compare(config, truth), time.monotonic() - started)


def settle(lives: ForkServer, config: Config, **env: str) -> None:
    """Run a last worker until it has read and answered everything."""
    last = lives.start(worker_of(config, "last", **env))
    # The embedded broker reports the beginning of its last batch as the end: the reader's end is used.
    end = sum({r.partition: r.offset + 1 for r in read_all(config, config.topics.clicks)}.values())

    def caught_up() -> bool:
        assert is_running(last), (config.data / "worker.log").read_text()[-2000:]
        with contextlib.suppress(StateError), View(config.data, config.topics.clicks, config.state) as view:
            return progress(view) >= end and all(
                p.answered() >= p.read_progress().next_offset and not p.erasing for p in view.partitions.values()
            )
        return False  # a damaged store that the worker has not replaced yet

    until(caught_up, SETTLED_WITHIN_S)
    lives.signal(last, signal.SIGTERM)


@contextmanager
def fresh(broker: str, partitions: int, window_s: float = 0.0) -> Iterator[Config]:
    """A configuration with a broker, topics and a data directory of its own, all removed at the end."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if broker == "kafka":
            if reason := missing():
                sys.exit(reason)
            address = stack.enter_context(kafka(**{"group.min.session.timeout.ms": "1000"}))
        else:
            address = stack.enter_context(EmbeddedBroker(folder / "broker")).address
        yield with_custom_kinds(
            with_short_session(with_topics(address, folder / "data", partitions=partitions)), window_s
        )


def main() -> None:
    """Print the report; exit 1 where anything differs."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--kills", type=int, default=1000)
    parse.add_argument("--events", type=int, default=200_000)
    parse.add_argument("--partitions", type=int, default=4)
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument("--broker", choices=("embedded", "kafka"), default="embedded")
    parse.add_argument(
        "--within-s", type=float, default=float("inf"), help="seconds after which there are no more kills"
    )
    parse.add_argument("--expiry", action="store_true", help=f"events expire after {WINDOW_S / 86_400} days of {DAYS}")
    asked = parse.parse_args()
    with fresh(asked.broker, asked.partitions, WINDOW_S if asked.expiry else 0.0) as config:
        report = kill(config, asked.kills, asked.events, asked.seed, asked.within_s)
    where = (f"{n} after step {point}" if point else f"{n} at any time" for point, n in sorted(report.kills.items()))
    found = report.found
    print(f"{asked.broker} broker, seed {asked.seed}, {asked.partitions} partitions, {report.seconds:,.0f} s")
    print(f"kills    {report.kills.total():,}: {', '.join(where)}")
    print(f"events   {report.truth.summary()}")
    print(f"lost     {found.lost:,}")
    print(f"doubled  {found.doubled:,}")
    print(f"differences in all, counts, roles, dead letters and last answers with them: {len(found.differences):,}")
    print("\n".join(found.differences[:20]))
    sys.exit(bool(found.differences))


if __name__ == "__main__":
    main()
