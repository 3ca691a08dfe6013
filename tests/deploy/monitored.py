"""A shop, watched: a broker behind a wire, worker, trainer and HTTP interface as processes, clicks that do not end, and
a real Prometheus and Alertmanager with the files of deploy/, in which minutes are seconds."""

import contextlib
import http.server
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from stream.config import Config
from stream.local.embedded_broker import EmbeddedBroker, free_port
from tests.conftest import with_topics
from tests.deploy.queries import PROMETHEUS
from tests.e2e.conftest import command_line, flags_of
from tests.e2e.wire import Wire

PROGRAMS = ("prometheus", "prometheus-alertmanager")
WRITE_TOKEN = "a-token-that-writes-events"
QUICK = {
    "ANABRANCH_TRAINING__EPOCHS": "1",
    "ANABRANCH_TRAINING__LAST_EPOCHS": "1",
    "ANABRANCH_TRAINING__WARM_UP_EPOCHS": "1",
    "ANABRANCH_TRAINING__HOLDOUT_EVENTS": "60",
    "ANABRANCH_TRAINER__MIN_EVENTS": "50",
    "ANABRANCH_TRAINER__EVERY_S": "20",
    "ANABRANCH_TRAINER__EVERY_EVENTS": "2000",
    "ANABRANCH_CHECKPOINTS__EVERY_S": "4",
    "ANABRANCH_MODEL__DIM": "16",
}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def shortened(rules: str) -> str:
    """The rules with short windows and waits. A day stays a day; Prometheus reads what is there of it."""

    def window(match: re.Match[str]) -> str:
        seconds = int(match[1]) * UNITS[match[2]]
        return match[0] if match[2] == "d" and seconds < 7 * 86400 else f"{min(max(seconds // 30, 8), 24)}s"

    rules = re.sub(r"(?<=[\[ :])(\d+)([smhd])(?=[\]): ])", window, rules)
    rules = re.sub(r"(?<=for: )(\d+)([smhd])$", "4s", rules, flags=re.M)
    rules = re.sub(r"(?<=interval: )(\d+)([smhd])", "1s", rules)
    # What a disk would be in hours: in this run, in seconds.
    return rules.replace("4 * 3600", "20").replace("[24s], 86400", "[24s], 20")


NO_FAULT = {"AnabranchRecommendationsLate", "AnabranchQualityBelowPopularity"}
"""Alerts that the test's own machine and clicks can make fire."""


class Watched:
    """Everything that runs; `fires` and `quiet` ask Prometheus."""

    def __init__(self, config: Config, wire: Wire, folder: Path) -> None:
        self.config, self.wire, self.folder = config, wire, folder
        self.notified: list[dict[str, Any]] = []
        """What Alertmanager has sent: alerts with their status and annotations."""
        self._receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._receives())
        self.ports = {name: free_port() for name in ("worker", "trainer", "serve", *PROGRAMS)}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._end = threading.Event()
        self.artifacts = folder / "artifacts"

    def start(self, name: str, **settings: str) -> None:
        """Start `anabranch NAME`, with these settings more."""
        own = {f"ANABRANCH_{name.upper()}__HTTP": f"127.0.0.1:{self.ports[name]}"}
        self._run(name, command_line(self.config, name), self._environment() | own | settings)

    def _environment(self) -> dict[str, str]:
        more = {"ANABRANCH_ARTIFACTS": str(self.artifacts), "ANABRANCH_SERVE__WRITE_TOKEN": WRITE_TOKEN}
        return os.environ | flags_of(self.config) | QUICK | more

    def kill(self, name: str) -> None:
        """End a process as a lack of memory does."""
        self.running[name].send_signal(signal.SIGKILL)
        self.running[name].wait()

    def command(self, *arguments: str) -> None:
        """Run `anabranch ...` to its end."""
        done = subprocess.run(
            command_line(self.config, *arguments), env=self._environment(), capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stderr

    def send(self, value: bytes) -> None:
        """Send a message to the topic of clicks."""
        self._producer.send(self.config.topics.clicks, key=value[-20:], value=value)

    def ask(self, path: str, **parameters: str | float) -> Any:
        """Ask Prometheus' HTTP interface."""
        url = f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def there_is(self, query: str, within_s: float = 400) -> None:
        """Wait until a query has a result."""
        deadline = time.monotonic() + within_s
        while not self.ask("query", query=query)["result"]:
            assert time.monotonic() < deadline, query
            time.sleep(0.5)

    def firing(self) -> dict[str, dict[str, Any]]:
        """The alerts that fire now, by name."""
        return {a["labels"]["alertname"]: a for a in self.ask("alerts")["alerts"] if a["state"] == "firing"}

    def fires(self, *names: str, within_s: float = 180) -> dict[str, dict[str, Any]]:
        """Wait until these alerts fire; return what fires then."""
        deadline = time.monotonic() + within_s
        while not set(names) <= (now := self.firing()).keys():
            assert time.monotonic() < deadline, f"{set(names) - now.keys()} does not fire; {sorted(now)} does"
            time.sleep(0.5)
        return now

    def quiet(self, within_s: float = 240) -> None:
        """Wait until no alert fires or is about to, for some seconds.

        Late recommendations do not count: how late they are is a matter of the machine that runs the tests. Nor does a
        model that predicts the flood of clicks, which are made up, worse than popularity does.
        """
        deadline, since = time.monotonic() + within_s, time.monotonic()
        while time.monotonic() - since < 6:
            now = {a["labels"]["alertname"] for a in self.ask("alerts")["alerts"]} - NO_FAULT
            if now:
                since = time.monotonic()
            assert time.monotonic() < deadline, f"still: {sorted(now)}"
            time.sleep(0.5)

    def _run(self, name: str, command: list[str], env: Any = None) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env)

    def _clicks(self) -> None:
        """Every user goes through the items in one order, so that there is something to learn."""
        for n in itertools.count():
            user = f"user-{n % 40}"
            value = {"user": user, "item": f"item-{(n // 40 + n % 40) % 25}", "id": str(n)}
            with contextlib.suppress(KafkaError):
                self._producer.send(self.config.topics.clicks, key=user.encode(), value=json.dumps(value).encode())
            if self._end.wait(0.06):
                return

    def _visits(self) -> None:
        """A page asks over HTTP, and the shop sends events."""
        serve = f"http://127.0.0.1:{self.ports['serve']}/v1"
        event = json.dumps({"user": "user-1", "item": "item-1"}).encode()
        write = {"Authorization": f"Bearer {WRITE_TOKEN}", "Content-Type": "application/json"}
        while not self._end.wait(1.0):
            for request in (
                urllib.request.Request(f"{serve}/users/user-1/recommendations"),
                urllib.request.Request(f"{serve}/items/item-1/related"),
                urllib.request.Request(f"{serve}/events", event, write),
            ):
                with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
                    answer.read()

    @contextlib.contextmanager
    def everything(self) -> Iterator["Watched"]:
        """Run all of it until the block ends."""
        self._producer = KafkaProducer(bootstrap_servers=self.config.broker, max_block_ms=2000)
        threads = [threading.Thread(target=work) for work in (self._clicks, self._visits, self._receiver.serve_forever)]
        try:
            for thread in threads:
                thread.start()
            for name in ("worker", "trainer", "serve"):
                self.start(name)
            self._start_alertmanager(self._receiver.server_port)
            self._start_prometheus()
            yield self
        finally:
            self._end.set()
            self._receiver.shutdown()
            self._receiver.server_close()
            for process in self.running.values():
                process.kill()
                process.wait()
            for thread in threads:
                thread.join()
            self._producer.close(timeout=2)

    def _receives(self) -> type[http.server.BaseHTTPRequestHandler]:
        notified = self.notified

        class Receiver(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                notified.extend(alert | {"receiver": body["receiver"]} for alert in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Receiver

    def _start_prometheus(self) -> None:
        for file in ("recording.yaml", "alerts.yaml"):
            (self.folder / file).write_text(shortened((PROMETHEUS / file).read_text()))
        config = (PROMETHEUS / "prometheus.yaml").read_text()
        for name, port in (("worker", 8081), ("trainer", 8082), ("serve", 8080)):
            config = config.replace(f'"{name}:{port}"', f'"127.0.0.1:{self.ports[name]}"')
        alertmanager = f"127.0.0.1:{self.ports['prometheus-alertmanager']}"
        config = config.replace("# alerting:", "alerting:").replace("alertmanager:9093", alertmanager)
        config = config.replace("scrape_interval: 15s", "scrape_interval: 2s")
        config = config.replace("evaluation_interval: 30s", "evaluation_interval: 1s")
        (self.folder / "prometheus.yaml").write_text(config)
        self._run(
            "prometheus",
            [
                "prometheus", f"--config.file={self.folder}/prometheus.yaml", f"--storage.tsdb.path={self.folder}/tsdb",
                f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}",
            ],
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                self.ask("alerts")
                return
            assert time.monotonic() < deadline, (self.folder / "prometheus.log").read_text()[-2000:]
            time.sleep(0.2)

    def _start_alertmanager(self, receiver: int) -> None:
        config = (PROMETHEUS / "alertmanager.yaml").read_text()
        config = re.sub(r"http://\w+\.example:8080/", f"http://127.0.0.1:{receiver}/", config)
        config = re.sub(r"(group_wait|group_interval): \w+", r"\1: 3s", config)
        (self.folder / "alertmanager.yaml").write_text(config)
        self._run(
            "prometheus-alertmanager",
            [
                "prometheus-alertmanager", f"--config.file={self.folder}/alertmanager.yaml",
                f"--storage.path={self.folder}/alertmanager", "--cluster.listen-address=",
                f"--web.listen-address=127.0.0.1:{self.ports['prometheus-alertmanager']}",
            ],
        )  # fmt: skip


def missing() -> str | None:
    """What is not installed."""
    gone = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(gone)} (Debian packages of these names)" if gone else None


@contextlib.contextmanager
def watched(folder: Path, data: Path) -> Iterator[Watched]:
    """A shop whose data directory is `data`."""
    broker = EmbeddedBroker(folder / "broker")
    wire = Wire(broker.port)
    broker.advertised = f"127.0.0.1:{wire.port}"
    with broker, wire.running():
        config = with_topics(f"127.0.0.1:{wire.port}", data)
        with Watched(config, wire, folder).everything() as made:
            yield made
