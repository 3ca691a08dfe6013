"""Whether the worker, the trainer or `serve` of this machine is ready, as `/readyz` answers.

Where its `http` is set the process is asked. Else the status file and the lock of a worker or trainer are looked at:
the same rule, on what the process wrote a second ago.
"""

import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal

import msgspec

from stream.config import Config
from stream.files.lock_file import is_held
from stream.http import listening_file
from stream.http.address import Address, parse_address
from stream.http.health import Health
from stream.http.readiness import not_ready
from stream.operate.worker_report import STALE_AFTER_MS
from stream.trainer import status_file as trainer_file
from stream.worker import served_file
from stream.worker import status_file as worker_file

Role = Literal["worker", "trainer", "serve"]

NAMES = {"worker": "worker", "trainer": "trainer", "serve": "`anabranch serve`"}
ANSWER_WITHIN_S = 3.0
"""A process whose event loop is blocked for longer does not answer."""
MAX_ANSWER_BYTES = 1 << 20
LOCAL = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a process that listens on every address is asked."""


class HealthReport(msgspec.Struct):
    """The health of one process."""

    ready: bool
    problems: list[str]
    source: str
    """What was asked, or looked at."""


def roles_here(config: Config) -> list[Role]:
    """The processes that this machine has: their address is set, or they have run in the data directory."""
    found: list[Role] = []
    if config.worker.http or (config.data / worker_file.FILE_NAME).exists():
        found.append("worker")
    if config.trainer.http or (config.data / trainer_file.FILE_NAME).exists():
        found.append("trainer")
    if listening_file.read(config.data):
        found.append("serve")
    return found


def health(config: Config, role: Role) -> HealthReport:
    """The health of the process with this role."""
    address = _address(config, role)
    if address.port:
        return _asked(address, config.data, role)
    if role == "serve":
        return HealthReport(False, ["nobody knows where it listens: `serve.http` names no port"], "serve.http")
    looked_at = f"{config.data / f'{role}.json'}, because {role}.http names no address"
    problems = _of_worker(config.data) if role == "worker" else _of_trainer(config.data)
    return HealthReport(not problems, problems, looked_at)


def _address(config: Config, role: Role) -> Address:
    """Where the process is asked; port 0: nowhere."""
    http = {"worker": config.worker.http, "trainer": config.trainer.http, "serve": config.serve.http}[role]
    if role == "serve":  # the setting may name a port that was in use, or none
        http = listening_file.read(config.data) or http
    try:
        return parse_address(http) if http else Address("", 0)
    except ValueError:  # the file is damaged
        return parse_address(config.serve.http)


def _asked(address: Address, data: Path, role: Role) -> HealthReport:
    url = f"http://{Address(LOCAL.get(address.host, address.host), address.port)}/readyz"
    # No proxy: the process is on this machine, whatever the environment names for others.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=ANSWER_WITHIN_S) as reply:
            answer = reply.read(MAX_ANSWER_BYTES)
    except urllib.error.HTTPError as error:
        answer = error.read(MAX_ANSWER_BYTES)
        error.close()
    except OSError as error:
        why = getattr(error, "reason", error)
        if role == "serve":
            process = "`anabranch serve` starts one"
        else:
            process = "its process runs" if is_held(data / f"{role}.lock") else f"no {role} holds {data}"
        return HealthReport(False, [f"nothing answers within {ANSWER_WITHIN_S:g} s ({why}); {process}"], url)
    try:
        found = msgspec.json.decode(answer, type=Health)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return HealthReport(False, [f"what answers is no {NAMES[role]}: {answer[:60]!r}"], url)
    return HealthReport(found.status == "ok", found.problems, url)


def _of_worker(data: Path) -> list[str]:
    status = worker_file.read(data)
    if not worker_file.is_running(data):
        return [f"no worker holds {data}: `anabranch worker` starts one"]
    if status is None or (age_ms := time.time() * 1000 - status.ts) > STALE_AFTER_MS:
        since = "yet" if status is None else f"for {age_ms / 1000:.0f} s"
        return [f"its process runs, and has written no status {since}: it is starting or does not respond"]
    served = served_file.read(data)
    problem = ""
    if served is not None and served.version is None:
        problem = served_file.not_loaded(served.named, served.why)
    return not_ready(
        status.phases,
        joined=status.joined,
        confirmed=status.confirmed,
        paused=bool(status.paused_ts),
        version_problem=problem,
    )


def _of_trainer(data: Path) -> list[str]:
    status = trainer_file.read(data)
    if not is_held(data / "trainer.lock"):
        return [f"no trainer holds {data}: `anabranch trainer` starts one"]
    return trainer_file.failing(status) if status is not None else []
