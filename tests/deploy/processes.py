"""Services of deploy/compose.yaml as processes of this machine, with volumes in a folder of the test."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.deploy.compose import DEPLOY, Service, hosts
from tests.kafka import LOGGING, cluster_id

OF_THE_IMAGE = {"ANABRANCH_DATA": "/data/anabranch"}
"""What the image sets: tests/deploy/test_image.py holds the image to it."""
PROGRAMS = {"prometheus": "prometheus", "alertmanager": "prometheus-alertmanager"}
"""What Debian names the programs of other images."""
BIND_HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'


def _moved(text: str, places: dict[str, str]) -> str:
    """A text in which every mounted path is that of this machine."""
    if not places:
        return text
    paths = "|".join(map(re.escape, places))  # the longest first
    return re.sub(rf"(?<![\w.])({paths})(?![\w.-])", lambda found: places[found[0]], text)


class Process:
    """A service that runs as a process."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, prefix: list[str]) -> None:
        self._environment, self._prefix, self.log = {**os.environ, **environment}, prefix, log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                prefix + command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=self._environment, start_new_session=True,
            )  # fmt: skip

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def healthy(self, test: list[str]) -> bool:
        """Whether its health check succeeds now."""
        done = subprocess.run(self._prefix + test, env=self._environment, capture_output=True, check=False)
        with self.log.open("ab") as log:
            log.write(done.stdout + done.stderr)
        return done.returncode == 0

    def stop(self, within_s: float) -> int:
        """Ask it to end, and wait."""
        self._process.terminate()
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"it did not end within {within_s:.0f} s: {self.log.read_text()[-2000:]}") from None


class Processes:
    """Starts services as processes. The paths and names of the file are replaced by those of the test."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = folder
        self._prefix = ["unshare", "--mount", "sh", "-c", BIND_HOSTS, str(hosts(folder, names))]

    def start(self, service: Service) -> Process:
        """Start a service."""
        if service.image.startswith("apache/kafka"):
            return self.kafka(service)
        moved = self._volumes(service)
        command, environment = service.command, {**service.environment}
        if service.image == "anabranch":
            command = [part for part in service.entrypoint or ["anabranch"] if part not in ("tini", "--")] + command
            environment = {**OF_THE_IMAGE, **environment, "PATH": f"{self._programs()}:{os.environ['PATH']}"}
        elif service.image.startswith("prom/"):
            command = [PROGRAMS[service.name], *command]
        else:
            raise NotImplementedError(f"{service.image} does not run here as a process")
        command = [_moved(part, moved) for part in command]
        environment = {name: _moved(value, moved) for name, value in environment.items()}
        return Process(command, environment, self._log(service), self._prefix)

    def kafka(self, service: Service) -> Process:
        """Start the Kafka at KAFKA_HOME with the settings that its image makes of the environment."""
        folder, data = self.folder, self._volumes(service)["/var/lib/kafka/data"]
        settings = {
            name.removeprefix("KAFKA_").lower().replace("_", "."): value
            for name, value in service.environment.items()
            if name != "KAFKA_HEAP_OPTS"
        } | {"log.dirs": data}
        properties = folder / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        (folder / "log4j2.properties").write_text(LOGGING)
        java = [
            "java", *service.environment["KAFKA_HEAP_OPTS"].split(), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={folder}/log4j2.properties", "-cp", f"{os.environ['KAFKA_HOME']}/libs/*",
        ]  # fmt: skip
        if not (Path(data) / "meta.properties").exists():
            made = [*java, "kafka.tools.StorageTool", "format", "-t", cluster_id(), "-c", str(properties)]
            subprocess.run(self._prefix + made, check=True, capture_output=True)
        return Process([*java, "kafka.Kafka", str(properties)], {}, self._log(service), self._prefix)

    def _volumes(self, service: Service) -> dict[str, str]:
        """Where the mounted paths of a service are here, the longest first."""
        moved = {}
        for source, target, _ in service.volumes:
            path = (DEPLOY / source).resolve() if source.startswith(".") else self.folder / "volumes" / source
            if not source.startswith("."):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            moved[target] = str(path)
        return dict(sorted(moved.items(), key=lambda pair: -len(pair[0])))

    def _programs(self) -> Path:
        """A folder with `anabranch` and `python`, as the image has them on its path."""
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        for name, module in (("anabranch", "-m stream.cli"), ("python", "")):
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
            (programs / name).chmod(0o755)
        return programs

    def _log(self, service: Service) -> Path:
        return self.folder / f"{service.name}.log"
