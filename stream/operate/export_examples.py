"""The newest examples of the topic as a table in a file: a row for each candidate item, a column for each feature."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import msgspec
import numpy as np

from state.events import Ids
from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.example_log import ExampleLog
from stream.kafka.shapes import missing_topics

Row = dict[str, Any]
ItemNames = Callable[[Ids], list[str]]


class ExamplesReport(msgspec.Struct):
    """The document of `anabranch examples`."""

    file: str
    examples: int
    rows: int
    skipped: dict[str, int]
    """Messages that are not read as examples: `malformed`, or of another `schema`."""


def write_csv(file: TextIO, rows: Iterable[Row]) -> int:
    """Write rows as CSV, with a header; return how many."""
    count, writer = 0, None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
        writer.writerow(row)
        count += 1
    return count


def write_json_lines(file: TextIO, rows: Iterable[Row]) -> int:
    """Write one JSON object a line; return how many."""
    count = 0
    for row in rows:
        file.write(msgspec.json.encode(row).decode() + "\n")
        count += 1
    return count


WRITERS: Mapping[str, Callable[[TextIO, Iterable[Row]], int]] = {".csv": write_csv, ".jsonl": write_json_lines}
"""By the ending of the file."""


async def export(config: Config, file: Path, newest: int, *, users: bool, names: ItemNames) -> ExamplesReport:
    """Write the newest examples to the file. `users`: with the ids of their users; `names` are those of items.

    Raises AnabranchError, BrokerUnavailable.
    """
    log = ExampleLog(config, lambda _: 0, newest)
    if not await log.read():
        raise AnabranchError(missing_topics(config, [config.topics.examples]))
    try:
        with file.open("w", encoding="utf-8", newline="") as opened:
            rows = WRITERS[file.suffix](opened, rows_of(log, users=users, names=names))
    except OSError as error:
        raise AnabranchError(f"cannot write {file}: {error.strerror}") from None
    return ExamplesReport(str(file), len(log), rows, dict(log.skipped))


def rows_of(log: ExampleLog, *, users: bool, names: ItemNames) -> Iterator[Row]:
    """A row for each candidate item of each example, oldest example first."""
    from model.ranking.features import NAMES

    every = log.keyed()
    items = np.unique(np.concatenate([np.empty(0, np.uint64), *(example.items for _, example in every)]))
    name_of = dict(zip(items.tolist(), names(items), strict=True))
    for number, (user, example) in enumerate(every):
        about: Row = {"example": number, "moment": example.moment, "ts": example.ts, "version": example.version}
        if users:
            about["user"] = user.decode(errors="backslashreplace")
        about["propensity"] = example.propensity
        columns = (example.items.tolist(), example.stands_for.tolist(), example.features.tolist())
        for at, (item, stands_for, features) in enumerate(zip(*columns, strict=True)):
            own = {"item": name_of[item], "taken": int(at == 0), "stands_for": round(stands_for, 4)}
            yield about | own | dict(zip(NAMES, features, strict=True))
