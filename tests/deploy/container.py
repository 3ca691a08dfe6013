"""Services of deploy/compose.yaml in the image that `make image` builds, run by crun, an OCI runtime.

As under Docker: the image's user and environment, a root that is read-only where the file says so, no capability, no
new privileges, its own processes, mounts, host name and IPC. Not as under Docker: the network is the test's, limits of
memory and processes are not held (this needs control groups, which are not ours on a machine like CI's), and no seccomp
filter is set.
"""

import json
import os
import resource
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.compose import DEPLOY, Service, hosts
from tests.deploy.processes import Process, Processes

HIDE_CGROUPS = 'mount -t tmpfs none /sys/fs/cgroup && exec "$0" "$@"'
"""crun refuses control groups of both versions at once. It is to use none."""
KERNEL = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "size=64m"]},
    {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]},
]


@dataclass(frozen=True)
class Image:
    """A built image: where its files are, and its configuration."""

    root: Path
    config: dict[str, Any]


class Container(Process):
    """A container that runs in the foreground of its crun."""

    def __init__(self, bundle: Path, log: Path, user: str) -> None:
        self.user, self.name = user, f"anabranch-test-{uuid.uuid4().hex[:8]}"
        self._crun = ["crun", "--cgroup-manager=disabled", "--root", str(bundle.parent / "crun")]
        prefix = ["unshare", "--mount", "sh", "-c", HIDE_CGROUPS]
        super().__init__([*self._crun, "run", "--bundle", str(bundle), self.name], {}, log, prefix)

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in the container, as its user."""
        return subprocess.run(
            [*self._prefix, *self._crun, "exec", "--user", self.user, self.name, *command],
            capture_output=True,
            text=True,
            check=False,
        )

    def healthy(self, test: list[str]) -> bool:
        """Whether its health check succeeds now."""
        done = self.run(*test)
        with self.log.open("a") as log:
            log.write(done.stdout + done.stderr)
        return done.returncode == 0

    def stop(self, within_s: float) -> int:
        """Send the first process SIGTERM, as an engine does, and wait."""
        subprocess.run([*self._prefix, *self._crun, "kill", self.name, "TERM"], check=False)
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            subprocess.run([*self._prefix, *self._crun, "delete", "--force", self.name], check=False)
            raise AssertionError(f"it did not end within {within_s:.0f} s: {self.log.read_text()[-2000:]}") from None


class Containers:
    """Starts services of our image in containers, and the others as processes."""

    def __init__(self, folder: Path, names: list[str], image: Image) -> None:
        self.folder, self._image = folder, image
        self._hosts = hosts(folder, names)
        self._others = Processes(folder, names)

    def start(self, service: Service) -> Process:
        """Start a service."""
        if service.image != "anabranch":
            return self._others.start(service)
        bundle = self.folder / f"{service.name}-{uuid.uuid4().hex[:4]}"
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(self.specification(service)))
        return Container(bundle, self.folder / f"{service.name}.log", self._user(service))

    def _user(self, service: Service) -> str:
        """UID:GID."""
        return str(service.raw.get("user") or self._image.config["User"])

    def specification(self, service: Service) -> dict[str, Any]:
        """The service as an OCI runtime wants it: what an engine makes of the image and of the file."""
        config, raw = self._image.config, service.raw
        environment = dict(pair.split("=", 1) for pair in config["Env"]) | service.environment
        user, group = map(int, self._user(service).split(":"))
        capabilities = [] if raw.get("cap_drop") == ["ALL"] else ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID"]
        return {
            "ociVersion": "1.0.0",
            "process": {
                "terminal": False,
                "user": {"uid": user, "gid": group},
                "args": (service.entrypoint or config["Entrypoint"]) + (service.command or config["Cmd"]),
                "env": [f"{name}={value}" for name, value in environment.items()],
                "cwd": config["WorkingDir"],
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
                "noNewPrivileges": "no-new-privileges:true" in raw.get("security_opt", []),
                "rlimits": [self._limit(*limit) for limit in raw.get("ulimits", {}).items()],
            },
            "root": {"path": str(self._image.root), "readonly": raw.get("read_only", False)},
            "hostname": service.name,
            "mounts": KERNEL + self._mounts(service),
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
        }

    def _mounts(self, service: Service) -> list[dict[str, Any]]:
        mounts = [self._bind(self._hosts, "/etc/hosts", "ro")]
        for target, _, options in (entry.partition(":") for entry in service.raw.get("tmpfs", [])):
            kinds = ["nosuid", "nodev", *filter(None, options.split(","))]
            mounts.append({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": kinds})
        for source, target, read_only in service.volumes:
            path = (DEPLOY / source).resolve() if source.startswith(".") else self._volume(source, target)
            mounts.append(self._bind(path, target, "ro" if read_only else "rw"))
        return mounts

    def _volume(self, name: str, target: str) -> Path:
        """A named volume. A new one gets the owner and the mode that its place has in the image, as under Docker."""
        path, place = self.folder / "volumes" / name, self._image.root / target.lstrip("/")
        if not path.exists():
            path.mkdir(parents=True)
            if place.exists():
                os.chown(path, place.stat().st_uid, place.stat().st_gid)
                path.chmod(place.stat().st_mode & 0o7777)
        return path

    @staticmethod
    def _limit(name: str, value: int) -> dict[str, Any]:
        """A limit of the file, as far as this machine allows it: only Docker may raise one."""
        allowed = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
        value = value if allowed == resource.RLIM_INFINITY else min(value, allowed)
        return {"type": f"RLIMIT_{name.upper()}", "hard": value, "soft": value}

    @staticmethod
    def _bind(source: Path, target: str, how: str) -> dict[str, Any]:
        return {"destination": target, "type": "bind", "source": str(source), "options": ["bind", how]}
