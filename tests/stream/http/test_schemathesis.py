"""The interface keeps to its own description, whatever schemathesis thinks of."""

import asyncio
import importlib.util
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from stream.config import Config
from stream.http.api import Api
from stream.http.server import HttpServer
from tests.stream.http.shop import OPERATE, SETTINGS, WRITE, Counts, FixedAnswers

pytestmark = pytest.mark.ops

EXAMPLES = 60
RULES = """
# Of several events some may be sent and others named as wrong. So a wrong one need not be refused, and an event that
# fits its type can be wrong: its time, or the length of an id in bytes.
[[operations]]
include-name = "POST /v1/events"
[operations.checks]
negative_data_rejection.expected-statuses = ["2xx", "4xx", 503]
positive_data_acceptance.expected-statuses = ["2xx", 401, 422, 503]
"""


def check(address: str, token: str, folder: Path, examples: int) -> None:
    """Fail the test with what schemathesis finds at the address."""
    if importlib.util.find_spec("schemathesis") is None:
        pytest.skip("schemathesis is not installed: pip install '.[ops]'")
    rules = folder / "schemathesis.toml"
    rules.write_text(RULES)
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(rules), "run"]
    command += [f"{address}/openapi.json", "--max-examples", str(examples), "--seed", "1"]
    command += ["-H", f"Authorization: Bearer {token}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "Selected: 3/3" in done.stdout
    assert "Tested: 3" in done.stdout


@contextmanager
def served(read_token: str = "") -> Iterator[str]:
    """The interface on a port, in a thread; yields its address."""
    loop = asyncio.new_event_loop()
    answers, app = FixedAnswers(), web.Application()
    config = Config(serve=msgspec.structs.replace(SETTINGS, read_token=read_token))
    Api(config, answers, Counts(answers)).add_to(app)
    server = HttpServer(app, "127.0.0.1", 0)
    port = loop.run_until_complete(server.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(server.stop())
        loop.close()


def test_every_answer_is_one_that_is_described(tmp_path):
    with served() as address:
        check(address, OPERATE, tmp_path, EXAMPLES)


def test_so_is_every_answer_to_a_token_that_may_not_read(tmp_path):
    with served(read_token="read-token-of-the-shop") as address:
        check(address, WRITE, tmp_path, EXAMPLES // 4)
