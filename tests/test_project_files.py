"""The same checks run on a developer's machine, before a commit and in CI."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = sorted(set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M)))
WORKFLOW = (ROOT / ".github/workflows/ci.yml").read_text()
PRE_COMMIT = (ROOT / ".pre-commit-config.yaml").read_text()


@pytest.mark.parametrize("target", TARGETS)
def test_every_make_target_expands_and_help_lists_it(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^{target}:.*  ## \S", MAKEFILE, re.M), f"make help does not explain {target}"


def test_every_script_that_make_runs_exists():
    for module in re.findall(r"python -m ((?:benchmarks|tests)[\w.]*)", MAKEFILE):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_ci_runs_the_local_script_on_the_oldest_and_a_new_python():
    assert "run: .ci/run" in WORKFLOW
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert oldest
    assert re.search(rf'python: \["{oldest[1]}", "3\.\d+"\]', WORKFLOW)
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("make lint types test test-kafka")


def test_pre_commit_runs_make_lint_and_downloads_nothing():
    assert re.findall(r"^\s+entry: (.*)$", PRE_COMMIT, re.M) == ["make lint"]
    assert re.findall(r"repo: (.*)$", PRE_COMMIT, re.M) == ["local"]


@pytest.mark.parametrize("marker", ["broker", "slow", "faults", "medium"])
def test_the_fast_suite_leaves_out_every_marker_that_takes_time(marker):
    [fast] = re.findall(r"^test-fast:.*\n(.*)$", MAKEFILE, re.M)
    assert f"not {marker}" in fast
    assert re.search(rf'^    "{marker}: ', (ROOT / "pyproject.toml").read_text(), re.M)
