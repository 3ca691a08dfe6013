"""Install what Anabranch needs at run time into /opt/anabranch, every file checked by its hash in the locks.

    /build/bin/python deploy/image/dependencies.py      (deploy/Dockerfile)

requirements.lock also has what tests, the demo and plots need. pip says which of it the program needs; only that is
installed. EXTRA_PACKAGES names more, for example s3fs: with the versions of the lock for what they share with it, and
without hashes, because the lock has none of them.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

TARGET = "/opt/anabranch/bin/python"
VERSIONS = "versions.txt"
NO_TORCH = """
pip found no build of torch for processors alone (requirements-cpu.lock). The build for CUDA would make the image
several times as large. PyTorch's own index has it: the page "Get started" of PyTorch names the address for "CPU".
Give it to the build:

    make image PIP_EXTRA_INDEX_URL=ADDRESS
"""


def pip(*arguments: str) -> bool:
    """Run pip on the environment of the image; return whether it succeeded."""
    return subprocess.run([sys.executable, "-m", "pip", "--python", TARGET, *arguments], check=False).returncode == 0


def install(lock: str | Path) -> bool:
    """Install exactly what a lock names. Nothing is compiled: there is no compiler, and bytecode is written later."""
    return pip(
        "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-compile", "-r", str(lock)
    )


def canonical(name: str) -> str:
    """The name by which indexes know a package."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: Path) -> dict[str, str]:
    """The entries of a lock with their hashes, by package."""
    entries = re.findall(r"^[\w.-]+==(?:.*\\\n)*.*\n", lock.read_text(), re.M)
    return {canonical(entry.partition("==")[0]): entry for entry in entries}


def needed(entries: dict[str, str], folder: Path) -> list[str]:
    """The packages that the program needs, and what these need, at the versions of the lock."""
    wanted, versions, report = folder / "wanted.txt", folder / VERSIONS, folder / "report.json"
    wanted.write_text("\n".join(tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]))
    versions.write_text("\n".join(entry.partition("\\")[0] for entry in entries.values()))
    if not pip("install", "--quiet", "--dry-run", "--report", str(report), "-r", str(wanted), "-c", str(versions)):
        sys.exit("pip cannot resolve the dependencies in pyproject.toml with the versions in requirements.lock")
    found = [package["metadata"]["name"] for package in json.loads(report.read_text())["install"]]
    return sorted(canonical(name) for name in found)


def main() -> None:
    """Install torch's build for processors alone, and then the rest."""
    if not install("requirements-cpu.lock"):
        sys.exit(NO_TORCH)
    entries, folder = locked(Path("requirements.lock")), Path("/tmp")
    lock = folder / "requirements-image.lock"
    lock.write_text("".join(entries[name] for name in needed(entries, folder)))
    if not install(lock):
        sys.exit("pip could not install what requirements.lock names")
    extra = os.environ.get("EXTRA_PACKAGES", "").split()
    binary = ("--quiet", "--only-binary", ":all:", "--no-compile", "-c", str(folder / VERSIONS))
    if extra and not pip("install", *binary, *extra):
        sys.exit(f"pip could not install EXTRA_PACKAGES={' '.join(extra)} with the versions of requirements.lock")


if __name__ == "__main__":
    main()
