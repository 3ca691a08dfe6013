"""Write requirements.lock and requirements-cuda.lock: every package with the hashes of its files.

    .venv/bin/python docs/write_lock.py     (make lock)

Versions and markers are those that requirements.lock has: edit them there first. The hashes are those of the package
index that pip is configured with, for Linux (x86-64, ARM) and macOS, Python 3.11 and later. A source archive is listed
where a package has no wheel for all. requirements-cuda.lock has what torch needs in addition where pip finds its build
for CUDA. requirements-cpu.lock, written by hand, has a build for processors alone, which needs nothing of it.
"""

import contextlib
import re
import sys
from pathlib import Path
from typing import Any

from pip._internal.commands import create_command  # pip has no public way to ask its index
from pip._vendor.packaging.markers import default_environment
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.specifiers import SpecifierSet
from pip._vendor.packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from pip._vendor.packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCK, CUDA_LOCK = ROOT / "requirements.lock", ROOT / "requirements-cuda.lock"
PLATFORM = re.compile(r"^(any|manylinux.*_(x86_64|aarch64)|macosx_.*)$")
LINUX = "sys_platform == 'linux' and platform_machine == 'x86_64'"
HEADER = f"# Written by docs/{Path(__file__).name}: edit versions here, then run `make lock`.\n"


class Index:
    """The package index that pip is configured with."""

    def __init__(self) -> None:
        command = create_command("download")
        options, _ = command.parse_args(["x"])
        self._session: Any = command._build_session(options)  # type: ignore[attr-defined]
        self._url = options.index_url.rstrip("/")

    def files(self, name: str) -> list[dict[str, Any]]:
        """Every file of a package, with its hashes."""
        accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
        answer = self._session.get(f"{self._url}/{canonicalize_name(name)}/", headers=accept)
        answer.raise_for_status()
        return list(answer.json()["files"])

    def requires(self, file: dict[str, Any]) -> list[str]:
        """What a wheel depends on, as far as the index says it apart from the file."""
        answer = self._session.get(file["url"] + ".metadata")
        if answer.status_code == 404:
            return []
        answer.raise_for_status()
        return re.findall(r"^Requires-Dist: (.*)$", answer.text, re.M)


def runs_on(tag: Any) -> bool:
    """Whether a wheel with this tag installs on a platform and a Python that the README names."""
    python = re.fullmatch(r"(cp|py)3(\d*)", tag.interpreter)
    if python is None or not PLATFORM.match(tag.platform) or tag.abi.endswith("t"):
        return False
    return tag.abi in ("abi3", "none") or (python[1] == "cp" and int(python[2] or 0) >= 11)


def hashes(index: Index, name: str, version: str) -> list[str]:
    """The hashes of a package's files, sorted."""
    wheels, archives, for_all = [], [], False
    for file in index.files(name):
        try:
            if file["filename"].endswith(".whl"):
                _, found, _, tags = parse_wheel_filename(file["filename"])
            else:
                found, tags = parse_sdist_filename(file["filename"])[1], frozenset()
        except ValueError:
            continue
        if found != Version(version):
            continue
        if any(runs_on(tag) for tag in tags):
            wheels.append(file["hashes"]["sha256"])
            for_all |= any(tag.platform == "any" for tag in tags)
        elif not tags:
            archives.append(file["hashes"]["sha256"])
    some = len(wheels) > 2  # wheels for several platforms: none is missing that we name
    return sorted(wheels if for_all or some else [*wheels, *archives])


def entry(index: Index, line: str) -> str:
    """A line of the lock with its hashes."""
    required = Requirement(line)
    [version] = [pin.version for pin in required.specifier]
    found = hashes(index, required.name, version)
    if not found:
        sys.exit(f"the package index has no file of {line}")
    return " \\\n    ".join([line, *(f"--hash=sha256:{digest}" for digest in found)]) + "\n"


def pinned(lock: Path) -> list[str]:
    """The requirements of a lock, without hashes and comments."""
    lines = lock.read_text().splitlines()
    return [line.removesuffix("\\").strip() for line in lines if line and not line.startswith(("#", " "))]


def newest(index: Index, name: str, specifier: SpecifierSet) -> tuple[Version, dict[str, Any]]:
    """The newest wheel for Linux (x86-64) that a specifier allows, as pip chooses it."""
    found = []
    for file in index.files(name):
        with contextlib.suppress(ValueError):  # it is no wheel
            _, version, _, tags = parse_wheel_filename(file["filename"])
            linux = any(runs_on(tag) and re.search("x86_64|^any$", tag.platform) for tag in tags)
            if linux and specifier.contains(version):
                found.append((version, file))
    return max(found, key=lambda wheel: wheel[0])


def needed_for_cuda(index: Index, torch: str, present: set[str]) -> list[str]:
    """What torch's build for Linux needs beside the packages of the lock."""
    linux = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    allowed: dict[str, SpecifierSet] = {}
    chosen: dict[str, Version] = {}
    wanted = [Requirement(f"torch=={torch}")]
    while wanted:
        required = wanted.pop()
        name = canonicalize_name(required.name)
        allowed[name] = allowed.get(name, SpecifierSet()) & required.specifier
        if name in chosen and allowed[name].contains(chosen[name]) and not required.extras:
            continue
        chosen[name], file = newest(index, name, allowed[name])
        for needed in map(Requirement, index.requires(file)):
            extras = [{**default_environment(), **linux, "extra": extra} for extra in required.extras or {""}]
            meant = needed.marker is None or any(needed.marker.evaluate(extra) for extra in extras)
            if meant and canonicalize_name(needed.name) not in present:
                wanted.append(needed)
    return [f"{name}=={version}" for name, version in sorted(chosen.items()) if name != "torch"]


if __name__ == "__main__":
    index = Index()
    names = {canonicalize_name(Requirement(line).name): line for line in pinned(LOCK)}
    torch = next(pin.version for pin in Requirement(names["torch"]).specifier)
    for_cuda = needed_for_cuda(index, torch, set(names))
    LOCK.write_text(HEADER + "".join(entry(index, names[name]) for name in sorted(names)))
    CUDA_LOCK.write_text(HEADER + "".join(entry(index, f"{line}; {LINUX}") for line in for_cuda))
