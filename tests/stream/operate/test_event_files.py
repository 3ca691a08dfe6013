"""Event files: byte-order marks, broken lines, missing columns, damaged archives."""

import gzip
from pathlib import Path

import pytest

from stream.errors import AnabranchError
from stream.operate.event_files import open_text, read_interactions, read_rows


def read(path: Path, needed: tuple[str, ...] = ("user", "item")) -> tuple[list[dict], list[tuple[int, str]]]:
    broken: list[tuple[int, str]] = []
    with open_text(str(path)) as text:
        return [row for _, row in read_rows(text, needed, lambda line, why: broken.append((line, why)))], broken


def test_a_broken_line_is_reported_by_its_number_and_left_out(tmp_path):
    file = tmp_path / "e.csv"
    file.write_bytes(b"\xef\xbb\xbfuser,item,timestamp\nann,milk,10\nbob\ncid,bread,20\n,tea,30\nann,tea,soon\n")
    found, broken = read(file)
    assert [(r["user"], r["item"], r["ts"]) for r in found] == [("ann", "milk", 10_000), ("cid", "bread", 20_000)]
    assert [line for line, _ in broken] == [3, 5, 6]


def test_a_line_that_is_not_utf8_is_reported_and_left_out(tmp_path):
    file = tmp_path / "e.csv"
    file.write_bytes(b"user,item\nann,milk\nren\xe9,tea\nbob,bread\n")
    found, broken = read(file)
    assert [r["user"] for r in found] == ["ann", "bob"]
    assert broken == [(3, "is not UTF-8")]


def test_half_a_surrogate_pair_breaks_only_its_line(tmp_path):
    file = tmp_path / "e.jsonl"
    file.write_bytes(
        b'{"user": "\\ud83d", "item": "milk"}\n{"user": "a", "item": "b", "more": ["\\udc00"]}\n'
        b'{"user": "ren\xe9", "item": "tea"}\n{"user": "\\ud83d\\uded2", "item": "bread"}\n'
    )
    found, broken = read(file)
    assert [r["user"] for r in found] == ["🛒"]
    assert [line for line, _ in broken] == [1, 2, 3]


def test_a_header_that_is_not_utf8_is_refused(tmp_path):
    file = tmp_path / "e.csv"
    file.write_bytes("user,item,prénom\nann,milk,x\n".encode("latin-1"))
    with pytest.raises(AnabranchError, match="the CSV is not UTF-8"):
        read(file)


def test_a_header_that_is_too_long_is_refused(tmp_path):
    file = tmp_path / "e.csv"
    file.write_text("x" * 200_000)
    with pytest.raises(AnabranchError, match="does not name its columns: field larger than field limit"):
        read(file)


def test_json_that_is_nested_too_deeply_breaks_only_its_line(tmp_path):
    file = tmp_path / "e.jsonl"
    deep = '{"user": ' + "[" * 100_000 + "]" * 100_000 + "}"
    file.write_text('{"user": "ann", "item": "milk"}\n' + deep + '\n{"user": "bob", "item": "tea"}\n')
    found, broken = read(file)
    assert [r["user"] for r in found] == ["ann", "bob"]
    assert broken == [(2, "is not a JSON object")]


@pytest.mark.parametrize("time", ['"ts": "' + "9" * 5000 + '"', '"ts": 1' + "0" * 400, '"ts": 1e300', '"ts": Infinity'])
def test_an_impossible_time_breaks_only_its_line(tmp_path, time):
    file = tmp_path / "e.jsonl"
    file.write_text('{"user": "a", "item": "x", ' + time + '}\n{"user": "b", "item": "y", "ts": 7}\n')
    broken: list[tuple[int, str]] = []
    users, _, ts = read_interactions(str(file), lambda line, why: broken.append((line, why)))
    assert (users, ts.tolist()) == (["b"], [7])
    assert [line for line, _ in broken] == [1]


def test_a_gz_file_that_is_not_an_archive_is_refused_by_its_name(tmp_path):
    file = tmp_path / "e.csv.gz"
    file.write_text("user,item\nann,milk\n")
    with pytest.raises(AnabranchError, match=r"cannot read .*e\.csv\.gz: it is not a valid gzip file"):
        read(file)


def test_a_cut_off_gz_file_is_read_up_to_its_end_and_then_refused(tmp_path):
    file = tmp_path / "e.csv.gz"
    lines = "".join(f"user-{n},item-{n * n}\n" for n in range(20_000))
    whole = gzip.compress(f"user,item\n{lines}".encode())
    file.write_bytes(whole[: len(whole) // 2])
    found: list[dict] = []
    message = r"cannot read .*e\.csv\.gz beyond line [1-9]\d*: the compressed file is cut off"
    with open_text(str(file)) as text, pytest.raises(AnabranchError, match=message):
        found.extend(row for _, row in read_rows(text, ("user", "item"), lambda *_: None))
    assert found[1000] == {"user": "user-1000", "item": "item-1000000"}


def test_a_damaged_gz_file_is_refused(tmp_path):
    file = tmp_path / "e.csv.gz"
    file.write_bytes(gzip.compress(b"user,item\nann,milk\n")[:10] + b"\xff" * 30)
    with pytest.raises(AnabranchError, match="it is not a valid gzip file"):
        read(file)


def test_json_lines_are_read(tmp_path):
    file = tmp_path / "e.jsonl"
    file.write_text('{"user": "ann", "item": "milk"}\nnonsense\n[1]\n{"user": "bob"}\n{"user": 7, "item": "tea"}\n')
    found, broken = read(file)
    assert [r["user"] for r in found] == ["ann", 7]
    assert [line for line, _ in broken] == [2, 3, 4]


def test_json_lines_have_a_timestamp_in_seconds_or_a_ts_in_milliseconds(tmp_path):
    file = tmp_path / "e.jsonl"
    file.write_text(
        '{"user": "a", "item": "x", "timestamp": 20}\n{"user": "a", "item": "y", "ts": "30000"}\n'
        '{"user": "a", "item": "z", "timestamp": "soon"}\n'
    )
    found, broken = read(file)
    assert [row["ts"] for row in found] == [20_000, 30_000]
    assert broken == [(3, "timestamp 'soon' is not a number of seconds")]


def test_interactions_accept_iso_times_and_report_a_missing_one_by_its_line(tmp_path):
    file = tmp_path / "e.csv"
    file.write_text("user,item,ts\n,x,1\na,y,1970-01-01T00:01:00Z\na,z,\n")
    broken: list[tuple[int, str]] = []
    _, items, ts = read_interactions(str(file), lambda line, why: broken.append((line, why)))
    assert (items, ts.tolist()) == (["y"], [60_000])
    assert [line for line, _ in broken] == [2, 4]


def test_a_missing_column_is_named_with_the_columns_of_the_file(tmp_path):
    file = tmp_path / "e.csv"
    file.write_text("customer,item\nann,milk\n")
    with pytest.raises(AnabranchError, match=r"no column 'user'.*'customer', 'item'"):
        read(file)


def test_interactions_are_sorted_by_time_and_ties_keep_their_order(tmp_path):
    file = tmp_path / "e.csv.gz"
    lines = [
        (f"user-{n % 7}", f"item-{n}", (30, 10, 20)[n % 3]) for n in range(90)
    ]  # so many that an unstable sort would mix ties
    with gzip.open(file, "wt") as text:
        text.write("user,item,timestamp,rating\n" + "".join(f"{u},{i},{s},1\n" for u, i, s in lines))
    found = read_interactions(str(file), lambda *_: None)
    expected = [line for second in (10, 20, 30) for line in lines if line[2] == second]
    assert list(zip(*found[:2], (found[2] // 1000).tolist(), strict=True)) == expected
