"""Files as editors, spreadsheets and exports leave them: each line is read, or reported by its number."""

import bz2
import codecs
import gzip
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import AnabranchError
from stream.operate.file_rows import MAX_LINE_CHARACTERS, open_lines, read_rows

Broken = list[tuple[int, str]]


def read(path: Path) -> tuple[list[tuple[int, dict]], Broken]:
    """The rows of a file with their numbers, and its broken lines."""
    broken: Broken = []
    report = lambda line, why: broken.append((line, why))  # noqa: E731
    with open_lines(str(path), report) as lines:
        return list(read_rows(lines, lambda _: None, report)), broken


def write(folder: Path, content: str | bytes) -> Path:
    file = folder / "e.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


TWO_ROWS = [(2, {"user": "ann", "item": "milk"}), (3, {"user": "bob", "item": "tea"})]
CSV = "user,item\nann,milk\nbob,tea\n"


@pytest.mark.parametrize(
    "content",
    [
        CSV.encode(),
        CSV.replace("\n", "\r\n").encode(),
        CSV.replace("\n", "\r").encode(),
        CSV.rstrip().encode(),
        codecs.BOM_UTF8 + CSV.encode(),
        CSV.encode("utf-16"),
        codecs.BOM_UTF16_BE + CSV.encode("utf-16-be"),
        CSV.encode("utf-16-le"),
        CSV.encode("utf-16-be"),
        CSV.encode("utf-32"),
        CSV.replace(",", ";").encode(),
        CSV.replace(",", "\t").encode(),
        CSV.replace(",", "|").encode(),
        CSV.replace("user", '"user"').replace("milk", '"milk"').encode(),
        gzip.compress(CSV.encode()),
        gzip.compress(CSV.encode("utf-16")),
    ],
)
def test_the_encoding_the_delimiter_and_the_compression_are_found(tmp_path, content):
    assert read(write(tmp_path, content)) == (TWO_ROWS, [])


def test_blank_lines_are_skipped_and_counted(tmp_path):
    assert read(write(tmp_path, "\n\r\n" + CSV + "\n  \ncid,rice\n")) == (
        [(4, TWO_ROWS[0][1]), (5, TWO_ROWS[1][1]), (8, {"user": "cid", "item": "rice"})],
        [],
    )
    assert read(write(tmp_path, '\n{"a": 1}\n\n{"a": 2}\n')) == ([(2, {"a": 1}), (4, {"a": 2})], [])


@pytest.mark.parametrize("content", ["", "\n\n", "user,item\n", "[]", " [ ]\n"])
def test_a_file_without_rows_has_none(tmp_path, content):
    assert read(write(tmp_path, content)) == ([], [])


def test_a_quote_that_is_not_closed_breaks_only_its_line(tmp_path):
    rows = [f"u{n},i{n}" for n in range(300)]
    rows[7] = 'u7,"i7'
    rows[-1] = '"u299,i299'
    found, broken = read(write(tmp_path, "\n".join(["user,item", *rows])))
    assert broken == [(9, "it has a quote that is not closed"), (301, "it has a quote that is not closed")]
    assert [number for number, _ in found] == [n for n in range(2, 301) if n != 9]


def test_a_quote_that_is_not_closed_before_other_quotes_breaks_only_its_line(tmp_path):
    found, broken = read(write(tmp_path, 'user,item\na,"x\nb,"y"\nc,z\nd,"w\nv"\n'))
    assert broken == [(2, "it has a quote that is not closed")]
    assert found == [
        (3, {"user": "b", "item": "y"}), (4, {"user": "c", "item": "z"}), (5, {"user": "d", "item": "w\nv"}),
    ]  # fmt: skip


def test_quotes_inside_of_cells_are_read_as_before(tmp_path):
    found, broken = read(write(tmp_path, 'user,item\na,5" nail\nb,"5"" nail"\nc,"x" y\nd,"a,b"\n'))
    assert [row["item"] for _, row in found] == ['5" nail', '5" nail', "x y", "a,b"]
    assert broken == []


def test_an_empty_cell_is_no_value(tmp_path):
    assert read(write(tmp_path, "user,item,ts\na,x,\n,y,1\n"))[0] == [
        (2, {"user": "a", "item": "x"}), (3, {"item": "y", "ts": "1"}),
    ]  # fmt: skip


@pytest.mark.parametrize(("indent", "numbers"), [(None, [2, 2]), (0, [3, 12]), (2, [3, 12])])
def test_an_array_of_json_is_read_with_the_line_of_each_object(tmp_path, indent, numbers):
    events = [{"user": "ann", "tags": ["a", {"b": "}"}]}, {"user": "bob"}]
    found, broken = read(write(tmp_path, "\n" + json.dumps(events, indent=indent)))
    assert (found, broken) == (list(zip(numbers, events, strict=True)), [])


def test_objects_over_many_lines_are_read(tmp_path):
    assert read(write(tmp_path, '{\n  "a": 1\n}\n{\n  "a": 2\n}\n')) == ([(1, {"a": 1}), (4, {"a": 2})], [])


def test_a_broken_array_is_named_by_the_line(tmp_path):
    with pytest.raises(AnabranchError, match=r"its JSON is broken at line 3: Expecting"):
        read(write(tmp_path, '[{"a": 1},\n{"a": 2},\n{"a": },\n{"a": 4}]'))
    with pytest.raises(AnabranchError, match=r"its JSON is broken at line 2: "):
        read(write(tmp_path, "[\n" + "[{" * 100_000))


def test_a_value_of_an_array_that_is_no_event_costs_no_other(tmp_path):
    found, broken = read(write(tmp_path, b'[{"a": 1},\n7,\n{"a": NaN},\n{"a": "\xff"},\nnull, "x",\n{"a": 2}]'))
    assert found == [(1, {"a": 1}), (6, {"a": 2})]
    assert [line for line, _ in broken] == [2, 3, 4, 5, 5]


def test_json_lines_are_read_as_the_worker_reads_messages(tmp_path):
    found, broken = read(
        write(tmp_path, '{"a": 1}\nnonsense\n[1]\n{"a": NaN}\n{"a": 123456789012345678901234567890}\n')
    )
    assert [row["a"] for _, row in found] == [1, 123456789012345678901234567890]
    assert [line for line, _ in broken] == [2, 3, 4]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (bz2.compress(b"user,item\n"), "compressed by bzip2"),
        (b"\xfd7zXZ\x00\x00", "compressed by xz"),
        (b"(\xb5/\xfd$", "compressed by zstd"),
        (b"PAR1\x15", "a Parquet file"),
        (b"\x00" * 600, "not a text"),
        (b"e.csv".ljust(257, b"\x00") + b"ustar\x0000", "a tar archive"),
        (gzip.compress(b"e.csv".ljust(257, b"\x00") + b"ustar\x0000"), "a tar archive"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path, content, kind):
    with pytest.raises(AnabranchError, match=f"e.csv: it is {kind}"):
        read(write(tmp_path, content))


def test_a_zip_archive_a_directory_and_a_missing_file_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("e.csv", CSV)
    for file, message in [
        ("e.zip", "it is a zip archive or a spreadsheet"),
        ("", "Is a directory"),
        ("none", "No such file"),
        ("a\x00b", "null"),
    ]:
        with pytest.raises(AnabranchError, match=message):
            read(Path(f"{tmp_path}/{file}"))


def test_a_line_without_an_end_is_not_read_into_memory(tmp_path):
    long = "x" * (MAX_LINE_CHARACTERS + 5)
    found, broken = read(write(tmp_path, f"user,item\nann,{long}\nbob,tea\n"))
    assert found == [TWO_ROWS[1]]
    assert broken == [(2, "it is longer than 16,777,216 characters")]


def test_a_first_line_that_is_too_long_is_named_and_the_second_is_not_taken_for_it(tmp_path):
    long = "x" * (MAX_LINE_CHARACTERS + 5)
    with pytest.raises(AnabranchError, match="first line names no columns: it is longer than 16,777,216"):
        read(write(tmp_path, f"user,item,{long}\nann,milk,x\n"))
    assert read(write(tmp_path, f'{{"a": "{long}"}}\n{{"a": 1}}\n'))[0] == [(2, {"a": 1})]


cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@given(st.lists(st.tuples(cells, cells), max_size=8))
def test_what_pythons_csv_writes_is_read_back(tmp_path_factory, rows):
    import csv

    file = tmp_path_factory.mktemp("csv") / "e.csv"
    with file.open("w", newline="") as text:
        csv.writer(text).writerows([("user", "item"), *rows])
    found, broken = read(file)
    kept = [{name: value for name, value in zip(("user", "item"), row, strict=True) if value} for row in rows]
    assert [row for _, row in found] == kept
    assert broken == []


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("any") / "e.csv"
    file.write_bytes(b"user,item\n" + content)
    lines = content.count(b"\n") + content.count(b"\r") + 2
    found, broken = read(file)
    assert all(2 <= number <= lines for number, _ in [*found, *broken])
