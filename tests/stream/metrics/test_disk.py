"""Bytes of the data directory by kind, and a disk that does not answer."""

import os

from stream.metrics import disk
from stream.metrics.disk import Disk, bytes_by_kind

BLOCK = 4096


def write(path, size: int = BLOCK) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))


def test_files_count_to_the_kind_of_their_folder(tmp_path):
    for name in (
        "clicks-0/000012.sst", "restored-clicks-1/000001.sst", "aside-clicks-0-1600000000000/000001.sst",
        "models/create/000001/model.safetensors", "titles/000004.log", "worker.log", "worker.log.1", "worker.json",
    ):  # fmt: skip
        write(tmp_path / name)
    found = bytes_by_kind(tmp_path)
    assert {kind: size >= BLOCK for kind, size in found.items()} == {
        "state": True, "aside": True, "models": True, "titles": True, "logs": True, "other": True, "copies": False,
    }  # fmt: skip
    assert found["state"] == found["logs"] == 2 * found["models"]


def test_a_copy_takes_no_room_of_its_own_while_its_store_has_the_files(tmp_path):
    write(tmp_path / "clicks-0/000012.sst")
    alone = bytes_by_kind(tmp_path)
    (tmp_path / "copies/clicks-0").mkdir(parents=True)
    os.link(tmp_path / "clicks-0/000012.sst", tmp_path / "copies/clicks-0/000012.sst")
    assert bytes_by_kind(tmp_path) == alone
    (tmp_path / "clicks-0/000012.sst").unlink()  # compacted away
    assert bytes_by_kind(tmp_path)["copies"] == alone["state"]


def test_a_disk_that_does_not_answer_has_no_figures(tmp_path, monkeypatch):
    measured = Disk(tmp_path)
    assert measured.use is None
    measured.measure()
    assert measured.use.free > 0
    monkeypatch.setattr(disk, "OLD_AFTER_S", -1.0)
    assert measured.use is None
