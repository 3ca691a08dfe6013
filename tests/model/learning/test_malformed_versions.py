"""A version whose hashes are right and whose content is no version is refused as an artifact, never as a crash."""

import json
import struct

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from model.errors import ArtifactError
from model.learning.version_content import GRAPH_TABLE
from model.learning.versions import (
    GRAPH_FILE,
    ITEMS,
    MANIFEST,
    RANKER,
    WEIGHTS,
    list_versions,
    load,
    next_version,
    prune,
    publish,
    sha256,
)
from model.ranker.learning import new_ranker
from model.ranker.stored import encode
from model.ranking.features import NAMES, SCHEMA, START
from tests.faulty_store import FAILURES, fault
from tests.model.examples import cycling, learned

TRAINED = None


def trained():
    global TRAINED
    TRAINED = TRAINED or learned(cycling())._replace(ranker=new_ranker(len(NAMES), START, 0), ranker_ts=1_000)
    return TRAINED


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A version's files as bytes, by name, and the URL of a store to write them to."""
    store = tmp_path_factory.mktemp("store")
    publish(str(store), "create", trained(), {0: 120})
    return store, {file.name: file.read_bytes() for file in (store / "create" / "000001").iterdir()}


def load_hashed(store, files, **changes):
    """Write files with a manifest that has their right hashes and sizes, and load them."""
    manifest = json.loads(files[MANIFEST])
    for file in (WEIGHTS, ITEMS, GRAPH_FILE, RANKER):
        manifest["sha256"][file], manifest["sizes"][file] = sha256(files[file]), len(files[file])
    for key, value in changes.items():
        inside, _, last = key.rpartition("__")
        (manifest[inside] if inside else manifest)[last] = value
    files = files | {MANIFEST: json.dumps(manifest).encode()}
    for name, content in files.items():
        (store / "create" / "000001" / name).write_bytes(content)
    return load(str(store), "create", "000001", sha256(files[MANIFEST]))


def weights(change):
    def changed(files):
        tensors = load_tensors(files[WEIGHTS])
        return files | {WEIGHTS: save_tensors(change(tensors))}

    return changed


def items(change):
    def changed(files):
        return files | {ITEMS: msgspec.msgpack.encode(change(*msgspec.msgpack.decode(files[ITEMS])))}

    return changed


def ranker(**tensors):
    """A ranker's file with these tensors in place of its own; None: without it."""

    def changed(files):
        kept = {k: v for k, v in (load_tensors(files[RANKER]) | tensors).items() if v is not None}
        return files | {RANKER: save_tensors(kept, {"features": f"{SCHEMA}-64-32"})}

    return changed


def graph(change):
    """The file of the graph's table with another table."""
    return lambda files: (
        files | {GRAPH_FILE: save_tensors({GRAPH_TABLE: change(load_tensors(files[GRAPH_FILE])[GRAPH_TABLE])})}
    )


def header(change):
    """The weights with another header and the same content."""

    def changed(files):
        (length,) = struct.unpack("<Q", files[WEIGHTS][:8])
        lying = json.dumps(change(json.loads(files[WEIGHTS][8 : 8 + length]))).encode()
        return files | {WEIGHTS: struct.pack("<Q", len(lying)) + lying + files[WEIGHTS][8 + length :]}

    return changed


def with_nan(tensors):
    tensors["items.weight"][1, 0] = float("nan")
    return tensors


def with_infinity(tensors):
    tensors["sequence.norm.bias"][0] = float("inf")
    return tensors


def at(name, **changes):
    return lambda tensors: tensors | {name: tensors[name] | changes}


MALFORMED = {
    "a missing tensor": weights(lambda t: {k: v for k, v in t.items() if k != "sequence.norm.bias"}),
    "a tensor too many": weights(lambda t: t | {"more": torch.zeros(1)}),
    "no tensor": weights(lambda t: {}),
    "another shape": weights(lambda t: t | {"items.weight": t["items.weight"].T.contiguous()}),
    "a row too few": weights(lambda t: t | {"items.weight": t["items.weight"][1:].clone()}),
    "another dtype": weights(lambda t: t | {"items.weight": t["items.weight"].double()}),
    "whole numbers": weights(lambda t: t | {"items.weight": t["items.weight"].long()}),
    "half precision": weights(lambda t: t | {"sequence.norm.bias": t["sequence.norm.bias"].half()}),
    "not a number": weights(with_nan),
    "infinity": weights(with_infinity),
    "a header that names more bytes": header(at("items.weight", data_offsets=[0, 1 << 40])),
    "a header with a huge shape": header(at("items.weight", shape=[1 << 40, 1 << 20])),
    "a header with an unknown dtype": header(at("items.weight", dtype="F77")),
    "a header with a rare dtype": header(at("items.weight", dtype="F8_E8M0")),
    "overlapping tensors": header(lambda h: {k: v | {"data_offsets": [0, 4], "shape": [1]} for k, v in h.items()}),
    "a header that is no object": header(lambda h: [1, 2]),
    "a header longer than the file": lambda files: files | {WEIGHTS: struct.pack("<Q", 1 << 62) + b"{}"},
    "a pickle": lambda files: files | {WEIGHTS: b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."},
    "no weights": lambda files: files | {WEIGHTS: b""},
    "an item too many": items(lambda hashes, ids: ([*hashes, 7], [*ids, "x"])),
    "two rows of an item": items(lambda hashes, ids: ([hashes[0], *hashes[:-1]], ids)),
    "more hashes than ids": items(lambda hashes, ids: ([*hashes, 7], ids)),
    "a negative hash": items(lambda hashes, ids: ([-1, *hashes[1:]], ids)),
    "a float as hash": items(lambda hashes, ids: ([0.5, *hashes[1:]], ids)),
    "a number as id": items(lambda hashes, ids: (hashes, [7, *ids[1:]])),
    "no items": items(lambda hashes, ids: ([], [])),
    "an array that claims four billion items": lambda files: files | {ITEMS: b"\x92\xdd\xff\xff\xff\xff\x01"},
    "items nested a thousand levels": lambda files: files | {ITEMS: b"\x91" * 5000},
    "no ranker in its file": lambda files: files | {RANKER: b""},
    "a ranker cut short": lambda files: files | {RANKER: files[RANKER][:-1]},
    "a ranker that is not a number": ranker(mean=torch.full((len(NAMES),), torch.nan)),
    "a ranker of another shape": ranker(**{"first.weight": torch.zeros(64, 3)}),
    "a ranker without its last layer": ranker(**{"last.weight": None}),
    "a ranker that divides by zero": ranker(spread=torch.zeros(len(NAMES))),
    "no table of the graph in its file": lambda files: files | {GRAPH_FILE: b""},
    "a table of the graph of other items": graph(lambda table: table[1:].clone()),
    "a table of the graph with long numbers": graph(lambda table: table.float()),
    "a table of the graph that is not a number": graph(lambda table: torch.full_like(table, torch.nan)),
    "another tensor than the table of the graph": lambda files: files | {GRAPH_FILE: files[RANKER]},
    "an id that is not UTF-8": lambda files: files | {ITEMS: b"\x92\x91\x01\x91\xa1\xff"},
}


@pytest.mark.parametrize("malformed", MALFORMED)
def test_a_malformed_version_with_right_hashes_is_refused(published, malformed):
    store, files = published
    with pytest.raises(ArtifactError, match=r"version 000001|at most"):
        load_hashed(store, MALFORMED[malformed](files))
    assert load_hashed(store, files).manifest.version == "000001"


@pytest.mark.parametrize(
    "changes",
    [
        {"model__dim": 1 << 20},
        {"model__dim": 1 << 40},
        {"model__dim": 32},
        {"model__layers": 1 << 30},
        {"model__layers": 2},
        {"model__heads": 7},
        {"model__sequence_events": 1 << 30},
        {"model__sequence_events": 7},
        {"model__sequence_encoder": "os:system"},
        {"model__unknown": 1},
        {"version": "000002"},
        {"version": "../000001"},
        {"name": "other"},
        {"offsets": {"0": -1}},
        {"offsets": {"x": 1}},
        {"sizes__" + WEIGHTS: 1 << 50},
        {"sizes__" + WEIGHTS: -1},
        {"sizes__" + ITEMS: 1},
        {"sha256": {}},
        {"sha256__" + WEIGHTS: "../../etc/passwd"},
        {"created_ts": "now"},
        {"ranker_ts": -1},
        {"ranker_ts": 1 << 62},
        {"sizes__" + RANKER: 1},
        {"fusion__model": "1"},
    ],
)
def test_a_manifest_that_lies_is_refused(published, changes):
    store, files = published
    with pytest.raises(ArtifactError):
        load_hashed(store, files, **changes)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_bytes_have_changed_a_version_loads_or_is_refused(published, data):
    store, files = published
    name = data.draw(st.sampled_from([WEIGHTS, ITEMS, RANKER]))
    content = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 600) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(content), len(content) // 2, 9]))
    try:
        version = load_hashed(store, files | {name: bytes(content[:cut])})
    except ArtifactError:
        return
    ranker = version.trained.ranker
    for tensor in [*version.trained.model.state_dict().values(), *(ranker.state_dict().values() if ranker else ())]:
        assert torch.isfinite(tensor).all()
    assert len(version.trained.vocabulary) == version.trained.model.item_count


@pytest.mark.parametrize("version", ["", "..", "../000001", "1", "000001/../000001", "/etc", "000001\n", "9" * 30])
def test_a_version_whose_name_is_no_number_is_refused(published, version):
    store, files = published
    load_hashed(store, files)
    with pytest.raises(ArtifactError, match="is not a version"):
        load(str(store), "create", version)


def test_a_ranker_of_other_features_is_skipped_and_the_fusion_serves(published):
    store, files = published
    other = encode(new_ranker(len(NAMES), START, 0), "features of another release")
    trained = load_hashed(store, files | {RANKER: other}).trained
    assert (trained.ranker, trained.ranker_ts) == (None, 0)
    assert len(trained.vocabulary) == trained.model.item_count


def test_files_larger_than_the_limit_are_not_read(published):
    store, files = published
    load_hashed(store, files)
    with pytest.raises(ArtifactError, match="at most 100 are read"):
        load(str(store), "create", "000001", max_bytes=100)
    manifest = json.loads(files[MANIFEST])
    del manifest["sizes"]  # as older versions were written
    (store / "create" / "000001" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="at most 100 are read"):
        load(str(store), "create", "000001", max_bytes=100)
    assert load(str(store), "create", "000001").manifest.sizes == {}
    (store / "create" / "000001" / MANIFEST).write_bytes(b" " * (17 << 20))
    with pytest.raises(ArtifactError, match="more than 16,777,216 bytes"):
        load(str(store), "create", "000001")


@pytest.mark.parametrize("failure", FAILURES)
def test_a_store_that_fails_is_not_taken_for_an_empty_one(failure):
    url = f"faulty://versions-{failure.replace(' ', '-')}"
    publish(url, "create", trained(), {})
    for calls in ({"list"}, {"read"}):
        with fault(fails=FAILURES[failure], fails_in=calls):
            with pytest.raises(ArtifactError):
                list_versions(url, "create")
            with pytest.raises(ArtifactError):
                prune(url, "create", 1, [])
            with pytest.raises(ArtifactError):
                load(url, "create", "000001") if calls == {"read"} else next_version(url, "create")
    assert [m.version for m in list_versions(url, "create")] == ["000001"]


def test_prune_removes_versions_and_nothing_else(tmp_path):
    for _ in range(3):
        publish(str(tmp_path), "create", trained(), {})
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    create = tmp_path / "create"
    (create / "000000").symlink_to(tmp_path / "precious")
    (create / "notes").write_text("mine")
    (create / "000001" / "folder").mkdir()
    (create / "000001" / "folder" / "file").write_text("mine")
    with pytest.raises(ArtifactError, match="through a link"):
        prune(str(tmp_path), "create", 1, [])
    (create / "000000").unlink()
    assert prune(str(tmp_path), "create", 1, []) == ["000001", "000002"]
    assert (tmp_path / "precious" / "file").read_text() == (create / "notes").read_text() == "mine"
    assert (create / "000001" / "folder" / "file").read_text() == "mine"
    assert not (create / "000002").exists()
    assert [m.version for m in list_versions(str(tmp_path), "create")] == ["000003"]


def test_a_version_is_numbered_above_one_that_is_named_and_gone(tmp_path):
    publish(str(tmp_path), "create", trained(), {})
    assert publish(str(tmp_path), "create", trained(), {}, (), "000007").manifest.version == "000008"
    assert next_version(str(tmp_path), "create", "no number") == "000009"


def test_a_version_of_another_key_is_refused_until_it_is_signed(tmp_path):
    from model.learning.versions import sign_version

    url, keys = str(tmp_path), ("new key", "old key")
    publish(url, "create", trained(), {})
    publish(url, "create", trained(), {}, ("old key",))
    publish(url, "create", trained(), {}, ("stranger's",))
    assert [m.version for m in list_versions(url, "create", keys)] == ["000002"]
    assert load(url, "create", "000002", None, keys).manifest.version == "000002"
    for refused in ("000001", "000003"):
        with pytest.raises(ArtifactError, match=r"kafka\.signing_key is set: it is refused"):
            load(url, "create", refused, None, keys)
    sign_version(url, "create", "000001", keys)
    assert load(url, "create", "000001", None, ("new key",)).manifest.version == "000001"
    assert len(np.unique([m.version for m in list_versions(url, "create")])) == 3, "without a key nothing is refused"
