"""Looking leaves nothing behind."""

import os
import subprocess
import sys
import tempfile

from state.settings import StateSettings
from state.view import View


def test_what_a_killed_view_left_in_tmp_is_swept_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f"anabranch-view-{gone.pid}-abc"
    others = [tmp_path / f"anabranch-view-{os.getppid()}-abc", tmp_path / "anabranch-view-x-abc", tmp_path / "else"]
    for folder in (left, *others):
        (folder / "0").mkdir(parents=True)
    with View(tmp_path / "data", "clicks", StateSettings()):
        assert not left.exists()
        assert len(list(tmp_path.glob(f"anabranch-view-{os.getpid()}-*"))) == 1
    assert sorted(p for p in tmp_path.iterdir() if p.name != "data") == sorted(others)
