"""Wrong keys are logged at once, and then every hour with what came since."""

import logging

from stream.kafka.keys import Misplaced
from stream.worker.key_warnings import LOG_EVERY_S, KeyWarnings


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def logged(caplog, *batches: Misplaced, clock: Clock, partitions: int = 4, warnings: KeyWarnings | None = None):
    warnings = warnings or KeyWarnings("clicks", clock)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for batch in batches:
            warnings.add(batch, partitions)
    return warnings, [record.getMessage().split(" in ")[0] for record in caplog.records]


def test_wrong_keys_are_logged_at_once_and_an_hour_later_with_what_came_since(caplog):
    clock = Clock()
    warnings, first = logged(caplog, Misplaced(), Misplaced(2, 3), Misplaced(5, 7), Misplaced(1, 1), clock=clock)
    assert first == ["2 messages", "3 messages"]
    clock.now = LOG_EVERY_S
    _, later = logged(caplog, Misplaced(0, 1), clock=clock, warnings=warnings)
    assert later == ["6 messages", "9 messages"]


def test_librdkafka_is_named_only_where_it_explains_all(caplog):
    clock = Clock()
    warnings, _ = logged(caplog, Misplaced(0, 3, crc32=True), Misplaced(0, 3), clock=clock)
    assert "crc32" in caplog.text
    clock.now = LOG_EVERY_S
    logged(caplog, Misplaced(0, 3, crc32=True), clock=clock, warnings=warnings)
    assert "crc32" not in caplog.text


def test_with_one_partition_nothing_is_logged(caplog):
    _, lines = logged(caplog, Misplaced(2, 0), clock=Clock(), partitions=1)
    assert lines == []
