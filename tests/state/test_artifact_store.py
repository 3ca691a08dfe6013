"""An artifact store fails with an error for a person, in bounded time; nothing outside of it is touched."""

import contextlib
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state import artifact_store
from state.artifact_store import ArtifactStore
from tests.faulty_store import FAILURES, FaultyFileSystem, fault


class Failed(Exception):
    """The error that the caller chose."""


@pytest.fixture
def url() -> str:
    return f"faulty://{uuid.uuid4().hex}"


@pytest.fixture(params=["path", "faulty"])
def place(request, tmp_path: Path, url) -> str:
    return str(tmp_path / "store") if request.param == "path" else url


@pytest.fixture
def store(place) -> ArtifactStore:
    return ArtifactStore(place, Failed)


CALLS = {
    "read": lambda store, file: store.read("a/b", 100),
    "write": lambda store, file: store.write("a/c", b"content"),
    "upload": lambda store, file: store.upload(file, "a/d"),
    "download": lambda store, file: store.download("a/b", 3, file.with_name("there")),
    "list": lambda store, file: store.list("a"),
    "remove": lambda store, file: store.remove("a/b"),
    "read a manifest": lambda store, file: store.read_manifest("a/b"),
    "remove a folder": lambda store, file: store.remove_folder("a", "b"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("call", CALLS)
def test_every_failure_of_every_call_is_the_callers_error_with_place_and_reason(url, tmp_path, call, failure):
    store = ArtifactStore(url, Failed)
    store.write("a/b", b"abc")
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    with fault(fails=FAILURES[failure]), pytest.raises(Failed) as raised:
        CALLS[call](store, file)
    message = str(raised.value)
    assert url in message
    assert (str(FAILURES[failure]) or "MemoryError") in message
    CALLS[call](store, file)


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_is_not_answered_ends_and_the_next_ones_fail_at_once(url, tmp_path, monkeypatch, call):
    monkeypatch.setattr(artifact_store, "CALL_WITHIN_S", 0.05)
    store = ArtifactStore(url, Failed)
    store.write("a/b", b"abc")
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    with fault(stalls=True) as faulty:
        with pytest.raises(Failed, match="no answer within"):
            CALLS[call](store, file)
        hung = faulty.stalled
        for _ in range(50):
            with pytest.raises(Failed, match="did not answer, and is asked again in"):
                CALLS[call](store, file)
        assert faulty.stalled == hung, "no thread for each call"


def test_a_store_that_answers_again_is_used_again(url, monkeypatch):
    monkeypatch.setattr(artifact_store, "CALL_WITHIN_S", 0.05)
    monkeypatch.setattr(artifact_store, "ASK_AGAIN_S", 0.05)
    store = ArtifactStore(url, Failed)
    with fault(stalls=True), pytest.raises(Failed, match="no answer"):
        store.list()
    time.sleep(0.06)
    assert store.list() == {}


def test_a_store_that_hangs_does_not_keep_a_process_from_ending():
    code = (
        "import asyncio, sys\n"
        "from state import artifact_store\n"
        "artifact_store.CALL_WITHIN_S = 1000\n"
        "from state.artifact_store import ArtifactStore, beside\n"
        "from tests.faulty_store import fault\n"
        "async def run():\n"
        "    store = ArtifactStore('faulty://x', ValueError)\n"
        "    with fault(stalls=True):\n"
        "        task = asyncio.create_task(beside(store.list))\n"
        "        await asyncio.sleep(0.1)\n"
        "        task.cancel()\n"
        "        sys.exit(3)\n"
        "asyncio.run(run())\n"
    )
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=60, check=False)
    assert ended.returncode == 3
    assert time.monotonic() - began < 60


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(Failed, match=r"gs://bucket fails: .*gcsfs.*; install that package"):
        ArtifactStore("gs://bucket", Failed).list()
    with pytest.raises(Failed, match=r"Protocol not known: s4.*; set `artifacts` to a path"):
        ArtifactStore("s4://bucket", Failed).list()


def test_a_password_in_the_url_is_in_no_message():
    with pytest.raises(Failed) as raised:
        ArtifactStore("s4://user:secret@host/path", Failed).list()
    assert "secret" not in str(raised.value)


def test_no_more_is_read_than_the_caller_allows(store):
    store.write("a/b", b"x" * 1000)
    assert store.read("a/b", 1000) == b"x" * 1000
    with pytest.raises(Failed, match="more than 999 bytes"):
        store.read("a/b", 999)
    with pytest.raises(Failed, match=r"5,000 bytes, and at most 1,000 are read"):
        store.read("a/b", 1000, 5000)
    with pytest.raises(Failed, match=r"1,000 bytes, its manifest names 1,001"):
        store.read("a/b", 2000, 1001)
    assert store.read("a/c", 1000) is None


def test_a_truncated_answer_and_a_longer_one_are_no_content(url, tmp_path):
    store = ArtifactStore(url, Failed)
    store.write("a/b", b"abc")
    right = store.download("a/b", 3, tmp_path / "file")
    for lie in (lambda c: c[:-1], lambda c: b"", lambda c: c[:-1] + b"x"):
        with fault(reads=lie):
            assert store.download("a/b", 3, tmp_path / "file") != right
    for lie in (lambda c: c[:-1], lambda c: c + b"more"):
        with fault(reads=lie), pytest.raises(Failed, match="its manifest names 3"):
            store.read("a/b", 100, 3)


HOSTILE = [
    "..",
    ".",
    "../x",
    "a/../../x",
    "/etc/passwd",
    "a//b",
    "a/",
    "",
    "a\\b",
    "a\0b",
    "a\nb",
    "~",
    "x" * 300,
    "ü",
    "*",
]
CHANGES = {
    "read": lambda store, name: store.read(name, 100),
    "write": lambda store, name: store.write(name, b"x"),
    "remove": lambda store, name: store.remove(name),
    "remove a folder": lambda store, name: store.remove_folder(name, "x"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", [name for name in HOSTILE if name])
def test_a_name_that_is_a_path_is_refused(store, change, name):
    with pytest.raises(Failed):
        CHANGES[change](store, name)


@settings(max_examples=100)
@given(name=st.text(st.sampled_from("./\\ab\0\n~*%"), min_size=1, max_size=12), change=st.sampled_from(sorted(CHANGES)))
def test_whatever_the_name_nothing_outside_changes(tmp_path_factory, name, change):
    folder = tmp_path_factory.mktemp("store")
    (folder / "victim").write_text("mine")
    (folder / "inside" / "a").mkdir(parents=True)
    store = ArtifactStore(str(folder / "inside"), Failed)
    with contextlib.suppress(Failed):
        CHANGES[change](store, name)
    assert sorted(path.name for path in folder.iterdir()) == ["inside", "victim"]
    assert (folder / "victim").read_text() == "mine"


def test_links_that_lead_outside_are_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    victim = tmp_path / "outside" / "victim"
    victim.write_text("mine")
    inside = tmp_path / "store"
    inside.mkdir()
    (inside / "folder").symlink_to(tmp_path / "outside")
    (inside / "file").symlink_to(victim)
    store = ArtifactStore(str(inside), Failed)
    for change in CHANGES.values():
        with pytest.raises(Failed, match="through a link"):
            change(store, "folder/victim")
    for refused in (CHANGES["read"], CHANGES["write"]):
        with pytest.raises(Failed, match="through a link"):
            refused(store, "file")
    with pytest.raises(Failed, match="through a link"):
        store.remove_folder("folder", "victim")
    store.remove("file")  # the link itself is inside
    assert victim.read_text() == "mine"
    assert not os.path.lexists(inside / "file")


def test_a_store_that_is_itself_a_link_is_used(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    store = ArtifactStore(str(tmp_path / "store"), Failed)
    store.write("a/b", b"abc")
    assert (tmp_path / "disk" / "a" / "b").read_bytes() == b"abc"
    store.remove_folder("a", "b")
    assert list((tmp_path / "disk").iterdir()) == []


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    store = ArtifactStore(str(tmp_path / "store"), Failed)
    store.write("a/b", b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifact_store.os, "replace", full)
    with pytest.raises(Failed, match="No space left on device"):
        store.write("a/b", b"after")
    assert {path.name: path.read_bytes() for path in (tmp_path / "store" / "a").iterdir()} == {"b": b"before"}


def test_a_manifest_is_read_only_with_a_signature_of_a_known_key(store, place):
    old, new = ArtifactStore(place, Failed, ("old",)), ArtifactStore(place, Failed, ("new", "old"))
    store.write_manifest("a/unsigned", b"{}")
    old.write_manifest("a/signed", b"{}")
    assert store.read_manifest("a/signed") == old.read_manifest("a/signed") == new.read_manifest("a/signed") == b"{}"
    with pytest.raises(Failed, match="is not signed, and kafka"):
        old.read_manifest("a/unsigned")
    new.write_manifest("a/newest", b"{}")
    with pytest.raises(Failed, match="is signed with another key"):
        old.read_manifest("a/newest")
    store.write("a/signed", b"{ }")
    with pytest.raises(Failed, match="is signed with another key"):
        old.read_manifest("a/signed")
    store.write("a/moved", b"{}")
    store.write("a/moved.sig", new.read("a/newest.sig", 100))
    with pytest.raises(Failed, match="is signed with another key"):
        new.read_manifest("a/moved")


def test_no_bucket_is_made_by_writing(monkeypatch):
    made = []
    monkeypatch.setattr(FaultyFileSystem, "makedirs", lambda self, path, exist_ok=False: made.append(path))
    monkeypatch.setattr(FaultyFileSystem, "protocol", ("s3", "s3a"))
    ArtifactStore("faulty://mistyped/prefix", Failed).write("a", b"x")
    assert made == []
