"""Programs that a user could write instead of Anabranch: `ingest_rivals.py NAME BROKER EVENTS` runs one.

Prints the events a second from the first event to the last. Starting up does not count.
"""

import os
import sys
import tempfile
import time
import uuid
from typing import Any

import msgspec

ITEMS_PER_USER = 100


class Clock:
    """Prints the rate and ends the process after this many events."""

    def __init__(self, events: int) -> None:
        self._left = self.events = events
        self._first = 0.0

    def start(self) -> None:
        """Start the clock at the first event."""
        self._first = self._first or time.perf_counter()

    def count(self, events: int = 1) -> None:
        """Count events that are finished."""
        self.start()
        self._left -= events
        if self._left <= 0:
            print()  # Faust's spinner leaves an open line
            print(self.events / (time.perf_counter() - self._first), flush=True)
            sys.stdout.flush()
            os._exit(0)


def quix(broker: str, clock: Clock, folder: str) -> None:
    """Run Quix Streams with a list for each user in its RocksDB state."""
    from quixstreams import Application

    app = Application(
        broker_address=broker,
        consumer_group=f"quix-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        state_dir=folder,
        loglevel="ERROR",
    )

    def fold(value: dict[str, Any], state: Any) -> None:
        items = state.get("items", [])
        items.append([value["item"], value["ts"]])
        state.set("items", items[-ITEMS_PER_USER:])
        clock.start()

    stream = app.dataframe(app.topic("clicks", value_deserializer="json", key_deserializer="str"))
    stream.update(fold, stateful=True)
    app.run(count=clock.events)  # ends with a checkpoint; nothing is durable before it
    clock.count(clock.events)


def agent(broker: str, clock: Clock, folder: str, *, table: bool) -> None:
    """Run a Faust agent, with a list for each user in a Table, or with batches of 1,000 and no state."""
    import faust

    app = faust.App(
        f"rival-{uuid.uuid4().hex}",
        broker=f"kafka://{broker}",
        datadir=folder,
        store="rocksdb://?driver=rocksdict" if table else "memory://",
        web_enabled=False,
        topic_disable_leader=True,
        topic_partitions=1,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=2.0,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
    )
    clicks = app.topic("clicks", value_type=bytes, value_serializer="raw", internal=False)
    items_table = app.Table("items", default=list, partitions=1) if table else None

    @app.agent(clicks)
    async def fold(stream: Any) -> None:
        if items_table is None:
            async for events in stream.take(1000, within=1):
                clock.count(len(events))
            return
        async for value in stream:
            click = msgspec.json.decode(value)
            items = items_table[click["user"]]
            items.append([click["item"], click["ts"]])
            items_table[click["user"]] = items[-ITEMS_PER_USER:]
            clock.count()

    faust.Worker(app, override_logging=False, redirect_stdouts=False, quiet=True).execute_from_commandline()


def main() -> None:
    """Run one rival."""
    name, broker, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
    clock = Clock(events)
    with tempfile.TemporaryDirectory() as folder:
        if name == "quix":
            quix(broker, clock, folder)
        else:
            agent(broker, clock, folder, table=name == "table")


if __name__ == "__main__":
    main()
