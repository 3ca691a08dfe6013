"""Events from files: `publish` and `evaluate` read them as the worker reads messages."""

import gzip
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.config import ClickFields, ClickSettings
from stream.errors import AnabranchError
from stream.kafka.decode import Decoder
from stream.operate.event_files import EventFile, read_interactions, titles
from tests.stream.kafka.test_decode import Record
from tests.stream.test_times import forms_of, instants, zones

T = 1_795_000_000_000
MAPPED = ClickFields(user="customer.id|guest", item="product.sku", ts="meta.at")
Broken = list[tuple[int, str]]


@pytest.fixture(autouse=True)
def _in_2026(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: T / 1000 + 3600)


def sent(path: Path, fields: ClickFields = ClickFields()) -> tuple[list[dict[str, Any]], Broken]:  # noqa: B008
    """The messages that `publish` would send, and the broken lines."""
    broken: Broken = []
    events = EventFile(str(path), ClickSettings(fields=fields))
    events.check_times()
    messages = list(events.messages(lambda line, why: broken.append((line, why))))
    return [msgspec.json.decode(message.value) for message in messages], broken


def measured(path: Path, fields: ClickFields = ClickFields()) -> tuple[list[tuple[str, str, int]], Broken, list[str]]:  # noqa: B008
    """What `evaluate` reads, the broken lines and the notes."""
    broken: Broken = []
    notes: list[str] = []
    report = lambda line, why: broken.append((line, why))  # noqa: E731
    users, items, ts = read_interactions(str(path), report, ClickSettings(fields=fields), notes.append)
    return list(zip(users, items, ts.tolist(), strict=True)), broken, notes


def write(folder: Path, *lines: str, name: str = "e.csv") -> Path:
    file = folder / name
    file.write_text("\n".join(lines))
    return file


def test_a_broken_line_is_reported_by_its_number_and_left_out(tmp_path):
    lines = ["ann,milk,1795000000", "bob", "cid,bread,1795000020", ",tea,1795000030", "ann,tea,soon", "ann,tea,"]
    file = write(tmp_path, "user,item,timestamp", *lines)
    found, broken = sent(file)
    assert [(c["user"], c["item"], c.get("ts")) for c in found] == [
        ("ann", "milk", T), ("cid", "bread", T + 20_000), ("ann", "tea", None),
    ]  # fmt: skip
    assert broken == [
        (3, "it has 1 fields, the header has 3"),
        (5, "user is missing or null"),
        (6, "ts 'soon' is neither a number nor ISO-8601"),
    ]
    found, also_broken, notes = measured(file)
    assert found == [("ann", "milk", T), ("cid", "bread", T + 20_000)]
    assert also_broken == [*broken, (7, "it has no time: `ts` or `timestamp`")]
    assert notes == [f"{file}, line 2: times are read as seconds, by their size"]


def test_a_line_that_is_not_utf8_is_reported_and_left_out(tmp_path):
    file = tmp_path / "e.csv"
    file.write_bytes(b"user,item\nann,milk\nren\xe9,tea\nbob,bread\n")
    found, broken = sent(file)
    assert [c["user"] for c in found] == ["ann", "bob"]
    assert broken == [(3, "it is not UTF-8")]


def test_half_a_surrogate_pair_breaks_only_its_line(tmp_path):
    file = tmp_path / "e.jsonl"
    file.write_bytes(
        b'{"user": "\\ud83d", "item": "milk"}\n{"user": "a", "item": "b", "more": ["\\udc00"]}\n'
        b'{"user": "ren\xe9", "item": "tea"}\n{"user": "\\ud83d\\uded2", "item": "bread"}\n'
    )
    found, broken = sent(file)
    assert [c["user"] for c in found] == ["🛒"]
    assert [line for line, _ in broken] == [1, 2, 3]


def test_a_header_that_is_not_utf8_is_refused(tmp_path):
    file = tmp_path / "e.csv"
    file.write_bytes("user,item,prénom\nann,milk,x\n".encode("latin-1"))
    with pytest.raises(AnabranchError, match="the CSV is not UTF-8"):
        sent(file)


def test_a_header_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(AnabranchError, match="does not name its columns: field larger than field limit"):
        sent(write(tmp_path, "x" * 200_000))


def test_json_that_is_nested_too_deeply_breaks_only_its_line(tmp_path):
    deep = '{"user": ' + "[" * 100_000 + "]" * 100_000 + "}"
    found, broken = sent(write(tmp_path, '{"user": "ann", "item": "milk"}', deep, '{"user": "bob", "item": "tea"}'))
    assert [c["user"] for c in found] == ["ann", "bob"]
    assert broken == [(2, "it is JSON that is nested too deeply")]


@pytest.mark.parametrize(
    "ts",
    ['"' + "9" * 5000 + '"', "1" + "0" * 400, "1e300", "Infinity", "true", '"11/11/2019"', '{"$date": 1}', "7", '""'],
)
def test_an_impossible_time_breaks_only_its_line(tmp_path, ts):
    file = write(tmp_path, '{"user": "a", "item": "x", "ts": ' + ts + "}", f'{{"user": "b", "item": "y", "ts": {T}}}')
    for found, broken, *_ in (sent(file), measured(file)):
        assert len(found) == 1
        assert [line for line, _ in broken] == [1]


def test_what_the_worker_would_refuse_is_reported_before_it_is_sent(tmp_path):
    file = write(
        tmp_path, '{"user": "a", "item": "x", "event": "explode"}', '{"user": 1.5, "item": "x"}',
        '{"user": "a", "item": "x", "ts": "2031-01-01"}', '{"user": "a", "item": "x", "id": ""}',
        '{"user": "a", "event": "forget"}', '{"user": "a", "item": "x", "note": "' + "n" * (1 << 20) + '"}',
    )  # fmt: skip
    found, broken = sent(file)
    assert found == [{"user": "a", "event": "forget"}]
    assert [line for line, _ in broken] == [1, 2, 3, 4, 6]
    assert broken[0][1].startswith("unknown event kind 'explode'")
    assert "more than clicks.max_message_bytes = 1048576" in broken[4][1]


@settings(deadline=None, max_examples=20)
@given(instants.filter(lambda ms: ms < T), zones)
def test_every_form_of_an_instant_is_the_same_for_publish_evaluate_and_the_worker(tmp_path_factory, ms, zone):
    for form in forms_of(ms, zone):
        values = [form, str(form)] if isinstance(form, int) else [form]
        for value in values:
            line = msgspec.json.encode({"user": "ann", "item": "milk", "ts": value})
            file = tmp_path_factory.mktemp("form") / "e.jsonl"
            file.write_bytes(line)
            assert [c["ts"] for c in sent(file)[0]] == [ms]
            assert measured(file)[0] == [("ann", "milk", ms)]
            assert Decoder(ClickSettings()).one(Record(line, timestamp=T)).ts == ms
        file.write_text(f'user,item,timestamp\nann,milk,"{form}"\n')
        if not isinstance(form, float):
            assert measured(file)[0] == [("ann", "milk", ms)]


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5), st.just({"id": "x"}),
    st.sampled_from([T, T // 1000, str(T), "2026-11-01", "purchase", "forget", ["a"], "ann"]),
)  # fmt: skip
rows = st.dictionaries(
    st.sampled_from(["user", "item", "ts", "timestamp", "event", "id", "customer", "customer.id", "guest", "product"]),
    st.one_of(values, st.dictionaries(st.sampled_from(["id", "sku", "at"]), values, max_size=2)),
)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(rows, max_size=6), st.sampled_from([ClickFields(), MAPPED, ClickFields(ts_unit="us", user="guest|user")])
)
def test_what_is_sent_is_what_the_worker_accepts_and_the_rest_is_reported(tmp_path_factory, rows, fields):
    file = tmp_path_factory.mktemp("rows") / "e.jsonl"
    file.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    messages, broken = sent(file, fields)
    assert len(messages) + len(broken) == len(rows)
    records = [Record(msgspec.json.encode(message), timestamp=T + 3_600_000) for message in messages]
    assert Decoder(ClickSettings(fields=fields)).decode(records).dead == []
    refused = [msgspec.json.encode(rows[line - 1]) for line, _ in broken]
    found = Decoder(ClickSettings(fields=fields)).decode([Record(r, timestamp=T + 3_600_000) for r in refused])
    assert len(found.dead) == len(refused) or any("timestamp" in rows[line - 1] for line, _ in broken)


def test_a_unit_other_than_milliseconds_is_noted_once_before_anything_is_used(tmp_path):
    file = write(tmp_path, "user,item,ts", f"a,x,{T}", f"a,y,{T // 1000}", f"a,z,{T * 1000}", f"a,w,{T // 1000}")
    noted = [
        f"{file}, line 3: times are read as seconds, by their size, those before as milliseconds",
        f"{file}, line 4: times are read as microseconds, by their size, those before as seconds",
    ]
    assert measured(file) == ([("a", item, T) for item in "xyzw"], [], noted)
    notes: list[str] = []
    events = EventFile(str(file), ClickSettings(), on_note=notes.append)
    events.check_times()
    assert notes == noted
    assert [message.ts for message in events.messages(lambda *_: None)] == [T] * 4
    assert notes == noted
    in_order = write(tmp_path, "user,item,ts", f"a,x,{T}", "a,y,2026-11-10", name="in_order.csv")
    assert measured(in_order)[2] == []
    assert [c["ts"] for c in sent(file, ClickFields(ts_unit="ms"))[0]] == [T, T // 1000, T // 1000]


def test_times_that_are_likely_in_another_unit_are_left_out(tmp_path):
    file = write(tmp_path, "user,item,ts", f"a,x,{T}", "a,y,99999999999", "a,z,110000000000", "a,w,253402300799000")
    for _, broken, *_ in (sent(file), measured(file)):
        assert [line for line, _ in broken] == [3, 4, 5]
        assert all("which is not likely: set clicks.fields.ts_unit" in why for _, why in broken)


def test_small_times_are_measured_from_their_own_beginning_and_not_published(tmp_path):
    in_ms = write(tmp_path, "user,item,ts", "a,x,7", "a,y,3")
    found, broken, notes = measured(in_ms)
    assert (found, broken) == ([("a", "y", 3), ("a", "x", 7)], [])
    assert notes == [
        f"the times of {in_ms} are too small to be dates: they are read as times since a beginning of their own"
    ]
    assert measured(write(tmp_path, "user,item,timestamp", "a,x,7", name="in_s.csv"))[0] == [("a", "x", 7_000)]
    found, broken = sent(in_ms)
    assert (found, [line for line, _ in broken]) == ([], [2, 3])
    assert sent(in_ms, ClickFields(ts_unit="s"))[0][0]["ts"] == "1970-01-01T00:00:07.000Z"


def test_a_gz_file_that_is_not_an_archive_is_refused_by_its_name(tmp_path):
    file = tmp_path / "e.csv.gz"
    file.write_text("user,item\nann,milk\n")
    with pytest.raises(AnabranchError, match=r"cannot read .*e\.csv\.gz: it is not a valid gzip file"):
        sent(file)


def test_a_cut_off_gz_file_is_refused_before_anything_is_sent_and_read_up_to_its_end(tmp_path):
    file = tmp_path / "e.csv.gz"
    lines = "".join(f"user-{n},item-{n * n}\n" for n in range(20_000))
    whole = gzip.compress(f"user,item\n{lines}".encode())
    file.write_bytes(whole[: len(whole) // 2])
    message = r"cannot read .*e\.csv\.gz beyond line [1-9]\d*: the compressed file is cut off"
    with pytest.raises(AnabranchError, match=message):
        sent(file)
    messages = EventFile(str(file), ClickSettings()).messages(lambda *_: None)
    assert [next(messages) for _ in range(1001)][1000].value == b'{"user":"user-1000","item":"item-1000000"}'


def test_a_damaged_gz_file_is_refused(tmp_path):
    file = tmp_path / "e.csv.gz"
    file.write_bytes(gzip.compress(b"user,item\nann,milk\n")[:10] + b"\xff" * 30)
    with pytest.raises(AnabranchError, match="it is not a valid gzip file"):
        sent(file)


def test_the_shops_own_messages_are_sent_as_they_are(tmp_path):
    lines = [
        {"customer": {"id": 7, "tier": "gold"}, "product": {"sku": "milk"}, "meta": {"at": "2026-11-10T10:00:00Z"}},
        {"guest": "g-1", "customer": {"id": None}, "product": {"sku": "tea"}, "meta": {"at": T}},
        {"customer.id": "flat", "product.sku": "rice", "timestamp": "theirs"},
    ]
    file = write(tmp_path, *(msgspec.json.encode(line).decode() for line in lines), name="e.jsonl")
    assert sent(file, MAPPED) == (lines, [])
    assert [user for user, *_ in measured(file, MAPPED)[0]] == ["7", "g-1"]


def test_rows_with_our_names_become_the_shops_messages(tmp_path):
    wanted = {"customer": {"id": "ann"}, "product": {"sku": "milk"}, "meta": {"at": T}, "price": "3"}
    ours = write(tmp_path, "user,item,ts,price", f"ann,milk,{T},3")
    theirs = write(tmp_path, "customer.id,product.sku,meta.at,price", f"ann,milk,{T},3", name="theirs.csv")
    guests = write(tmp_path, "guest,product.sku,meta.at,price", f"ann,milk,{T},3", name="guests.csv")
    for file in (ours, theirs, guests):
        assert sent(file, MAPPED) == ([wanted], [])
        assert measured(file, MAPPED)[0] == [("ann", "milk", T)]


def test_the_path_of_a_missing_field_is_named(tmp_path):
    found, broken = sent(write(tmp_path, '{"guest": "g", "product": {}}', '{"name": "x"}'), MAPPED)
    assert (found, broken) == (
        [],
        [(1, "item (product.sku) is missing or null"), (2, "user (customer.id|guest) is missing or null")],
    )
    with pytest.raises(AnabranchError, match=r"no column 'customer.id\|guest', 'product.sku'.*names 'name', 'ts'"):
        sent(write(tmp_path, "name,ts", "x,1"), MAPPED)


def test_a_missing_or_repeated_column_is_named_with_the_columns_of_the_file(tmp_path):
    with pytest.raises(AnabranchError, match=r"no column 'user'.*'customer', 'item'"):
        sent(write(tmp_path, "customer,item", "ann,milk"))
    with pytest.raises(AnabranchError, match="the CSV has two columns 'user'"):
        sent(write(tmp_path, "user,item,user", "ann,milk,bob"))


def test_other_columns_travel_with_the_event_and_empty_cells_do_not(tmp_path):
    file = write(tmp_path, "user,item,ts,event,id,price", f"ann,milk,{T},,,3", "bob,tea,,purchase,e-1,")
    assert sent(file) == (
        [
            {"user": "ann", "item": "milk", "ts": T, "price": "3"},
            {"user": "bob", "item": "tea", "event": "purchase", "id": "e-1"},
        ],
        [],
    )


def test_titles_are_read_and_what_is_no_title_is_reported(tmp_path):
    broken: Broken = []
    file = write(tmp_path, '{"item": 7, "title": "Milk", "more": 1}', '{"item": 8}', '{"item": 9, "title": 5}',
                 '{"item": true, "title": "Tea"}')  # fmt: skip
    found = list(titles(str(file), lambda line, why: broken.append((line, why))))
    assert [(message.key, message.value) for message in found] == [(b"7", b'{"item":7,"title":"Milk","more":1}')]
    assert broken == [
        (2, "title is missing"), (3, "title 5 is not text"), (4, "item True is neither text nor a whole number"),
    ]  # fmt: skip
    with pytest.raises(AnabranchError, match="the CSV has no column 'title'"):
        list(titles(str(write(tmp_path, "item,name", "7,Milk")), lambda *_: None))


def test_interactions_are_sorted_by_time_and_ties_keep_their_order(tmp_path):
    file = tmp_path / "e.csv.gz"
    lines = [
        (f"user-{n % 7}", f"item-{n}", (30, 10, 20)[n % 3]) for n in range(90)
    ]  # so many that an unstable sort would mix ties
    with gzip.open(file, "wt") as text:
        text.write("user,item,timestamp,rating\n" + "".join(f"{u},{i},{s},1\n" for u, i, s in lines))
    found = [(user, item, ts // 1000) for user, item, ts in measured(file)[0]]
    assert found == [line for second in (10, 20, 30) for line in lines if line[2] == second]
