"""Files as people have them: marks at the front, broken lines, missing columns."""

import gzip
from pathlib import Path

import pytest

from stream.errors import AnabranchError
from stream.files import opened, read_interactions, rows


def read(path: Path, needed: tuple[str, ...] = ("user", "item")) -> tuple[list[dict], list[tuple[int, str]]]:
    broken: list[tuple[int, str]] = []
    with opened(str(path)) as text:
        return [row for _, row in rows(text, needed, lambda line, why: broken.append((line, why)))], broken


def test_a_broken_line_is_told_by_its_number_and_the_rest_goes_on(tmp_path):
    file = tmp_path / "e.csv"
    file.write_bytes(b"\xef\xbb\xbfuser,item,timestamp\nann,milk,10\nbob\ncid,bread,20\n,tea,30\nann,tea,soon\n")
    found, broken = read(file)
    assert [(r["user"], r["item"], r["ts"]) for r in found] == [("ann", "milk", 10_000), ("cid", "bread", 20_000)]
    assert [line for line, _ in broken] == [3, 5, 6]


def test_json_lines_are_read_as_well(tmp_path):
    file = tmp_path / "e.jsonl"
    file.write_text('{"user": "ann", "item": "milk"}\nnonsense\n[1]\n{"user": "bob"}\n{"user": 7, "item": "tea"}\n')
    found, broken = read(file)
    assert [r["user"] for r in found] == ["ann", 7]
    assert [line for line, _ in broken] == [2, 3, 4]


def test_seconds_and_milliseconds_are_told_apart_in_json_lines_too(tmp_path):
    file = tmp_path / "e.jsonl"
    file.write_text(
        '{"user": "a", "item": "x", "timestamp": 20}\n{"user": "a", "item": "y", "ts": "30000"}\n'
        '{"user": "a", "item": "z", "timestamp": "soon"}\n'
    )
    found, broken = read(file)
    assert [row["ts"] for row in found] == [20_000, 30_000]
    assert broken == [(3, "timestamp 'soon' is not a number of seconds")]


def test_interactions_may_have_their_time_as_iso_and_a_missing_one_is_told_by_its_line(tmp_path):
    file = tmp_path / "e.csv"
    file.write_text("user,item,ts\n,x,1\na,y,1970-01-01T00:01:00Z\na,z,\n")
    broken: list[tuple[int, str]] = []
    _, items, ts = read_interactions(str(file), lambda line, why: broken.append((line, why)))
    assert (items, ts.tolist()) == (["y"], [60_000])
    assert [line for line, _ in broken] == [2, 4]


def test_a_missing_column_is_named_with_those_there_are(tmp_path):
    file = tmp_path / "e.csv"
    file.write_text("customer,item\nann,milk\n")
    with pytest.raises(AnabranchError, match=r"no column 'user'.*'customer', 'item'"):
        read(file)


def test_interactions_come_in_time_order_and_ties_keep_theirs(tmp_path):
    file = tmp_path / "e.csv.gz"
    with gzip.open(file, "wt") as text:
        text.write("user,item,timestamp,rating\na,x,20,1\nb,y,10,1\na,z,10,1\n")
    users, items, ts = read_interactions(str(file), lambda *_: None)
    assert (users, items, ts.tolist()) == (["b", "a", "a"], ["y", "z", "x"], [10_000, 10_000, 20_000])
