"""The same checks run on a developer's machine, before a commit and in CI."""

import configparser
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("make lint types test test-kafka\nmake test-ops QUICK=1")


def test_pre_commit_runs_make_lint_and_downloads_nothing():
    assert re.findall(r"^\s+entry: (.*)$", PRE_COMMIT, re.M) == ["make lint"]
    assert re.findall(r"repo: (.*)$", PRE_COMMIT, re.M) == ["local"]


@pytest.mark.parametrize("marker", ["broker", "slow", "faults", "medium", "ops", "image"])
def test_the_fast_suite_leaves_out_every_marker_that_takes_time(marker):
    [fast] = re.findall(r"^test-fast:.*\n(.*)$", MAKEFILE, re.M)
    assert f"not {marker}" in fast
    assert re.search(rf'^    "{marker}: ', (ROOT / "pyproject.toml").read_text(), re.M)


LOCKS = {
    name: re.split(r"\n(?=\w)", (ROOT / name).read_text().partition("\n")[2].strip())
    for name in ("requirements.lock", "requirements-cpu.lock", "requirements-cuda.lock")
}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_has_a_version_and_hashes(lock):
    entry = re.compile(r"[\w.-]+==[\w.+]+(; .+)?( \\\n    --hash=sha256:[0-9a-f]{64})+")
    assert [package for package in LOCKS[lock] if not entry.fullmatch(package)] == []


def test_the_lock_has_every_dependency_of_the_project_at_an_allowed_version():
    locked = dict(re.match(r"([\w.-]+)==([\w.]+)", package).groups() for package in LOCKS["requirements.lock"])  # type: ignore[union-attr]
    locked = {canonicalize_name(name): version for name, version in locked.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["demo"], *extras["dev"], *extras["plot"]]
    for requirement in map(Requirement, needed):
        if requirement.name != project["name"]:
            version = locked[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement} but {version} is locked"


def test_make_installs_what_the_lock_names_and_nothing_else():
    installs = re.findall(r"\$\(PIP\) (.*)", MAKEFILE.partition("\n.venv/installed:")[2])
    assert installs == [
        "--no-deps -r requirements-cpu.lock 2>/dev/null || true",
        "--no-deps -r requirements.lock",
        "--no-deps -r requirements-cuda.lock",
        "--no-deps --no-build-isolation -e .",
    ]
    assert any(package.startswith("setuptools==") for package in LOCKS["requirements.lock"])
    [torch] = [package for package in LOCKS["requirements.lock"] if package.startswith("torch==")]
    assert LOCKS["requirements-cpu.lock"][0].startswith(torch.split(" ")[0] + "+cpu ")


UNIT = configparser.RawConfigParser(strict=False, interpolation=None)
UNIT.optionxform = str  # type: ignore[assignment,method-assign]
UNIT.read(ROOT / "deploy/anabranch.service")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("UMask", "0077"),
        ("StateDirectoryMode", "0700"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
        ("SystemCallFilter", "@system-service"),
        ("LimitCORE", "0"),
        ("LimitNOFILE", "65536"),
        ("Restart", "always"),
    ],
)
def test_the_unit_gives_the_service_no_more_than_it_needs(setting, value):
    assert UNIT["Service"][setting] == value


def test_the_unit_can_write_where_it_works_and_runs_no_code_of_a_home_directory():
    service = UNIT["Service"]
    assert service["WorkingDirectory"] == f"/var/lib/{service['StateDirectory']}"
    assert service["Environment"] == f"HOME={service['WorkingDirectory']}"
    assert service["User"] != "root"


def test_a_unit_for_each_process_has_the_rights_of_the_one_for_all():
    unit, template = (ROOT / f"deploy/{name}.service" for name in ("anabranch", "anabranch@"))
    own = ("Description=", "ExecStart=", "KillMode=", "TimeoutStopSec=", "#")
    rules = [[line for line in file.read_text().splitlines() if not line.startswith(own)] for file in (unit, template)]
    assert rules[0] == rules[1]
    assert "\nExecStart=/opt/anabranch/bin/anabranch %i\n" in template.read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on the PATH")
@pytest.mark.parametrize("unit", ["anabranch.service", "anabranch@.service"])
def test_systemd_rates_the_unit_as_well_protected(unit):
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--threshold=20",
        str(ROOT / "deploy" / unit),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze is older than 250")
    assert done.returncode == 0, done.stdout[-200:]
