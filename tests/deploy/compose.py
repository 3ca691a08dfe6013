"""deploy/compose.yaml, started without a Docker engine: services in their order, each by a launcher.

A launcher says how a service runs: as processes of this machine (`processes.py`), or in its image (`container.py`).
All of it is in a network namespace of its own, in which the ports are those of the file.
"""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP = 0x40000000, 0x8914, 1
READY_WITHIN_S = 180.0


@dataclass
class Service:
    """One service of the file."""

    name: str
    image: str
    command: list[str]
    entrypoint: list[str] | None
    environment: dict[str, str]
    volumes: list[tuple[str, str, bool]]
    """What is mounted: the name of a volume or a path beside the file, where, and whether it cannot be written."""
    raw: dict[str, Any] = field(repr=False)

    @property
    def health(self) -> list[str] | None:
        """The command of the health check."""
        check = self.raw.get("healthcheck", {}).get("test")
        return check[1:] if check else None


def document(file: Path = COMPOSE) -> dict[str, Any]:
    """The file as data. Skips the test where PyYAML is not installed."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: make test-ops and make test-image do it")
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded


def services(file: Path = COMPOSE) -> dict[str, Service]:
    """Every service of the file. Skips the test where PyYAML is not installed."""
    found = {}
    for name, raw in document(file)["services"].items():
        mounts = [text.split(":") for text in raw.get("volumes", [])]
        found[name] = Service(
            name, raw["image"], raw.get("command", []), raw.get("entrypoint"), raw.get("environment", {}),
            [(source, target, more == ["ro"]) for source, target, *more in mounts], raw,
        )  # fmt: skip
    return found


class Running(Protocol):
    """A service that has been started."""

    log: Path

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""

    def healthy(self, test: list[str]) -> bool:
        """Whether its health check succeeds now."""

    def stop(self, within_s: float) -> int:
        """Ask it to end, and wait. Fails the test if it has not ended in time."""


class Launcher(Protocol):
    """Starts services, with volumes in `folder / "volumes"`."""

    folder: Path

    def start(self, service: Service) -> Running:
        """Start a service."""


class Stack:
    """The services that have been started."""

    def __init__(self, launcher: Launcher, file: Path = COMPOSE) -> None:
        self.launcher = launcher
        self.services = services(file)
        self.running: dict[str, Running] = {}

    def up(self, *names: str) -> None:
        """Start services in this order; before each, wait for what it depends on, as compose does."""
        for name in names:
            for other, how in self.services[name].raw.get("depends_on", {}).items():
                self._wait(other, how["condition"])
            self.running[name] = self.launcher.start(self.services[name])

    def _wait(self, name: str, condition: str) -> None:
        if condition == "service_completed_successfully":
            self.wait(name, lambda: self.running[name].poll() is not None)
            assert self.running[name].poll() == 0, self.log(name)
        elif condition == "service_healthy":
            self.wait_healthy(name)

    def wait_healthy(self, name: str) -> None:
        """Wait until the health check of a service succeeds."""
        test = self.services[name].health
        assert test is not None
        self.wait(name, lambda: self.running[name].healthy(test), still_runs=True)

    def wait(self, name: str, condition: Any, *, still_runs: bool = False, within_s: float = READY_WITHIN_S) -> None:
        """Wait for a condition of a service; fail with its log."""
        deadline = time.monotonic() + within_s
        while not condition():
            ended = still_runs and self.running[name].poll() is not None
            assert not ended, f"{name} has ended: {self.log(name)}"
            assert time.monotonic() < deadline, f"{name} took more than {within_s:.0f} s: {self.log(name)}"
            time.sleep(0.2)

    def log(self, name: str) -> str:
        """What a service has written."""
        return self.running[name].log.read_text(errors="replace")[-4000:]

    def down(self) -> None:
        """End what still runs, the last one first."""
        with ExitStack() as ending:  # all of them, also where one does not end in time
            for running in self.running.values():
                if running.poll() is None:
                    ending.callback(running.stop, 30)


@contextmanager
def network_of_its_own() -> Iterator[None]:
    """Put this thread, and what it starts, into a new network namespace that has the loopback interface only."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before:
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "no new network namespace")
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
            yield
        finally:
            libc.setns(before.fileno(), CLONE_NEWNET)


def may_isolate() -> str | None:
    """Why no network namespace can be made here; None if one can."""
    if os.geteuid() != 0:
        return "a network namespace needs root"
    done = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False)
    return None if done.returncode == 0 else "this machine allows no new namespaces"


def hosts(folder: Path, names: list[str]) -> Path:
    """A hosts file in which every service is this machine."""
    file = folder / "hosts"
    file.write_text(f"127.0.0.1 localhost {' '.join(names)}\n")
    return file
