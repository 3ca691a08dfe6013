"""Workers join, leave, are killed, or are stopped until the group gives them up and then go on as zombies, under load.

`python -m tests.crash.membership --help`. Each worker has a data directory of its own, and all share one artifact
store. In the end a worker on a new machine takes over everything.
"""

import argparse
import contextlib
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from kafka import KafkaProducer

from state.view import View
from stream.config import Config
from tests.crash.clicks import Clicks
from tests.crash.kills import fresh, settle, worker_of
from tests.crash.lives import fork_server, is_running
from tests.crash.oracle import Found, Truth, compare, fold
from tests.e2e.conftest import read_all

WORKERS = 3
BURST_EVENTS = 50
CHECKPOINT_EVERY_S = "3"


class Report(NamedTuple):
    """The moves, and the differences that were found."""

    moves: Counter[str]
    truth: Truth
    found: Found
    behind: list[str]
    """Differences between the log and the stores of workers that are gone, up to the offset of each store."""
    restored: int
    """Partitions that the last worker restored from a checkpoint."""


@contextlib.contextmanager
def load(config: Config, seed: int, per_s: int) -> Iterator[None]:
    """Publish clicks until the block ends."""
    clicks, done = Clicks(config, seed), threading.Event()

    def click() -> None:
        with contextlib.closing(KafkaProducer(bootstrap_servers=config.broker)) as producer:
            while not done.is_set():
                clicks.publish(producer, BURST_EVENTS)
                done.wait(BURST_EVENTS / per_s)

    clicking = threading.Thread(target=click)
    clicking.start()
    try:
        yield
    finally:
        done.set()
        clicking.join()


def run_moves(config: Config, moves: int, seed: int, per_s: int = 200) -> Report:
    """Make `moves` moves with up to three workers. Then run the last worker, and compare."""
    draw, done = random.Random(seed), Counter[str]()
    away_s = 2 * config.worker.session_timeout_ms / 1000
    homes = [msgspec.structs.replace(config, data=config.data / str(n)) for n in range(WORKERS)]
    env = {"ANABRANCH_ARTIFACTS": str(config.data / "artifacts"), "ANABRANCH_CHECKPOINTS__EVERY_S": CHECKPOINT_EVERY_S}
    alive: dict[int, int] = {}
    with fork_server(config.data / "fork-server.log") as lives:
        with load(config, seed, per_s):
            for number in range(moves):
                home = draw.randrange(WORKERS)
                move = "join" if home not in alive else ("zombie", "kill", "leave")[number % 3]
                done[move] += 1
                if move == "join":
                    alive[home] = lives.start(worker_of(homes[home], str(home), **env))
                elif move == "zombie":
                    lives.signal(alive[home], signal.SIGSTOP)
                    time.sleep(away_s)  # the others take its partitions over
                    lives.signal(alive[home], signal.SIGCONT)
                else:
                    lives.signal(alive.pop(home), signal.SIGKILL if move == "kill" else signal.SIGTERM)
                time.sleep(draw.uniform(0.5, away_s))
                for one in [h for h, process in alive.items() if not is_running(process)]:
                    raise AssertionError((homes[one].data / "worker.log").read_text()[-2000:])
        for process in alive.values():
            lives.signal(process, signal.SIGTERM)
        log = read_all(config, config.topics.clicks)
        truth = fold(log, config)
        last = msgspec.structs.replace(config, data=config.data / "last")
        settle(lives, last, **env)
    restored = (last.data / "worker.log").read_text().count("restored from the checkpoint")
    behind = [line for home in homes for line in differences_up_to_its_offset(home, log)]
    return Report(done, truth, compare(last, truth), behind, restored)


def differences_up_to_its_offset(home: Config, log: list) -> list[str]:  # type: ignore[type-arg]
    """Differences between the log and the stores of a worker, up to the offset of each store."""
    if not home.data.exists():
        return []
    with View(home.data, home.topics.clicks, home.state) as view:
        ends = {number: p.read_progress().next_offset for number, p in view.partitions.items()}
    part = fold([r for r in log if r.offset < ends.get(r.partition, 0)], home)
    # Answers since then, and dead letters of other workers, are not this store's.
    return [f"{home.data.name}: {d}" for d in compare(home, part, sent=False).differences]


def main() -> None:
    """Print the report; exit 1 where anything differs."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--moves", type=int, default=100)
    parse.add_argument("--per-s", type=int, default=200, help="clicks published a second during the moves")
    parse.add_argument("--partitions", type=int, default=4)
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument("--broker", choices=("embedded", "kafka"), default="embedded")
    asked = parse.parse_args()
    with fresh(asked.broker, asked.partitions) as config:
        report = run_moves(config, asked.moves, asked.seed, asked.per_s)
    found = report.found
    print(f"{asked.broker} broker, seed {asked.seed}, {asked.partitions} partitions, {WORKERS} workers")
    print(f"moves    {report.moves.total()}: {', '.join(f'{n} {move}' for move, n in sorted(report.moves.items()))}")
    print(f"events   {report.truth.summary()}")
    print(f"lost     {found.lost:,}")
    print(f"doubled  {found.doubled:,}")
    print(f"differences in all, counts, roles, dead letters and last answers with them: {len(found.differences):,}")
    print(f"differences in stores left behind, each up to its own offset: {len(report.behind):,}")
    print(f"partitions that the last worker restored from a checkpoint: {report.restored}")
    print("\n".join([*found.differences, *report.behind][:20]))
    sys.exit(bool(found.differences or report.behind))


if __name__ == "__main__":
    main()
