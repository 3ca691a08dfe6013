"""Builds the image as `make image` does, on a base made of Debian's packages: no image registry is needed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.deploy.container import Image

ROOT = Path(__file__).parent.parent.parent
STORE = ROOT / "build/test-image"
BASE, TAG = "localhost/debian-python", "localhost/anabranch-test"
BASE_PACKAGES = "ca-certificates,python3,python3-venv,tini"
"""What the public base `python:3.11-slim-bookworm` has, and tini."""
NEEDED = ("mmdebstrap", "buildah", "crun", "unshare")


def missing() -> str | None:
    """Why no image can be built and run here; None if one can."""
    absent = [program for program in NEEDED if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install mmdebstrap buildah crun"
    return None if os.geteuid() == 0 else "building on a base of Debian's packages needs root"


def buildah(*arguments: str) -> str:
    """Run buildah on the test's store; return what it prints."""
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, f"buildah {' '.join(arguments)}: {done.stderr[-4000:]}"
    return done.stdout.strip()


def environment() -> dict[str, str]:
    """Variables with which buildah keeps all that it makes in the test's store, and needs no daemon and no runtime."""
    return {
        **os.environ,
        "BUILDAH_ISOLATION": "chroot",
        "CONTAINERS_STORAGE_CONF": str(STORE / "storage.conf"),
    }


def prepare_store() -> None:
    """Make the store. Its layers share files by overlay; where the kernel cannot, they are copies: room and time."""
    STORE.mkdir(parents=True, exist_ok=True)
    for driver in ("overlay", "vfs"):
        places = f'graphroot = "{STORE}/{driver}"\nrunroot = "{STORE}/run"\n'
        (STORE / "storage.conf").write_text(f'[storage]\ndriver = "{driver}"\n{places}')
        if subprocess.run(["buildah", "images"], capture_output=True, env=environment(), check=False).returncode == 0:
            return


def make_base() -> None:
    """Make a base image out of Debian's packages, if it is not there yet."""
    if BASE in buildah("images", "--format", "{{.Name}}").splitlines():
        return
    archive = STORE / "base.tar"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", str(archive)]
    subprocess.run(command, check=True)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, str(archive), "/")
    buildah("commit", "--quiet", "--format", "docker", container, BASE)
    buildah("rm", container)
    archive.unlink()


def build(sbom: Path) -> str:
    """Build the image by deploy/build_image.py; return what it prints."""
    command = [sys.executable, "deploy/build_image.py", "--tag", TAG, "--base", BASE, "--sbom", str(sbom)]
    hidden = {**environment(), "DOCKER_HOST": "unix:///nonexistent"}  # an engine has no part in this
    done = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


@contextmanager
def built(sbom: Path) -> Iterator[Image]:
    """The image, mounted. Its layers are removed afterwards; KEEP_IMAGE=1 keeps them for the next run."""
    prepare_store()
    container = ""
    try:
        make_base()
        build(sbom)
        container = buildah("from", "--pull-never", TAG)
        config = json.loads(buildah("inspect", "--type", "image", TAG))["Docker"]["config"]
        yield Image(Path(buildah("mount", container)), config)
    finally:
        if container:
            buildah("umount", container)
            buildah("rm", container)
        if not os.environ.get("KEEP_IMAGE"):
            buildah("rmi", "--all", "--force")
            shutil.rmtree(STORE, ignore_errors=True)


def layers(folder: Path) -> list[dict[str, Any]]:
    """The layers of the image as a registry gets them, compressed: digest, size in bytes."""
    buildah("push", "--quiet", "--format", "v2s2", TAG, f"dir:{folder}")
    manifest = json.loads((folder / "manifest.json").read_text())
    return list(manifest["layers"])
