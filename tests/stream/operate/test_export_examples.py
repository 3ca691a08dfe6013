"""The table of examples: named features, items by name where they are known, users only where they are asked for."""

import asyncio
import csv
import json

import msgspec
import pytest

from model.ranking.features import NAMES
from stream.errors import AnabranchError
from stream.operate.export_examples import export
from tests.stream.kafka.test_example_log import packed, send

pytestmark = pytest.mark.broker


def named(items) -> list[str]:
    return [f"item-{item}" for item in items.tolist()]


def test_a_table_has_a_row_for_each_candidate_item_in_both_forms(config, tmp_path):
    send(config, ("ann", packed(1_000)), ("bob", packed(1_001)), ("ann", packed(1_002)), ("bob", None))
    lines, table = tmp_path / "examples.jsonl", tmp_path / "examples.csv"
    found = asyncio.run(export(config, lines, 100, users=True, names=named))
    assert (found.examples, found.rows, found.skipped) == (2, 6, {})
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [(r["example"], r["user"], r["item"], r["taken"], r["ts"]) for r in rows[2:4]] == [
        (0, "ann", "item-3", 0, 1_000),
        (1, "ann", "item-1", 1, 1_002),
    ]
    assert rows[0]["own_90"] == 0.5
    asyncio.run(export(config, table, 100, users=False, names=named))
    with table.open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == [name for name in rows[0] if name != "user"]
    assert set(NAMES) <= read[0].keys()


def test_the_newest_are_exported_and_a_file_that_cannot_be_written_is_named(config, tmp_path):
    send(config, *(("ann", packed(1_000 + n)) for n in range(5)))
    file = tmp_path / "examples.jsonl"
    assert asyncio.run(export(config, file, 2, users=False, names=named)).examples == 2
    assert [json.loads(line)["ts"] for line in file.read_text().splitlines()[::3]] == [1_003, 1_004]
    with pytest.raises(AnabranchError, match=r"cannot write .*nowhere.*: No such file"):
        asyncio.run(export(config, tmp_path / "nowhere" / "examples.csv", 2, users=False, names=named))


def test_without_the_topic_the_command_that_creates_it_is_named(config, tmp_path):
    topics = msgspec.structs.replace(config.topics, examples="nowhere")
    elsewhere = msgspec.structs.replace(config, topics=topics)
    with pytest.raises(AnabranchError, match="'nowhere': run `anabranch init`"):
        asyncio.run(export(elsewhere, tmp_path / "examples.csv", 2, users=False, names=named))
