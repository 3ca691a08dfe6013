"""A process whose HTTP address cannot be used ends at its start, with a message for people."""

import asyncio
import os
import socket
import subprocess
import sys

from aiohttp import ClientSession

from stream.cli.process import pages_of_waiting
from stream.config import Config
from stream.http.server import HttpServer


def start(data, http: str) -> subprocess.CompletedProcess[str]:
    """`anabranch worker`, with nobody at the broker's address."""
    command = [sys.executable, "-m", "stream.cli", "worker", "--data", str(data), "--broker", "127.0.0.1:9"]
    env = {**os.environ, "ANABRANCH_WORKER__HTTP": http}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)


def test_an_address_that_is_taken_ends_the_worker_before_it_waits_for_a_broker(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = start(tmp_path, address)
    assert done.returncode == 1
    assert f"worker.http = '{address}': another process listens there already" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_none_is_a_wrong_setting(tmp_path):
    done = start(tmp_path, "8081")
    assert done.returncode == 2
    assert "http = '8081' is not HOST:PORT" in done.stderr


def test_serve_without_an_address_is_a_wrong_setting(tmp_path):
    command = [sys.executable, "-m", "stream.cli", "serve", "--data", str(tmp_path), "--broker", "127.0.0.1:9"]
    env = {**os.environ, "ANABRANCH_SERVE__HTTP": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 2
    assert "setting 'serve.http' is empty" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_that_waits_for_its_broker_names_it_and_is_0_in_the_metrics():
    async def pages() -> list[str]:
        server = HttpServer(pages_of_waiting("trainer", Config(broker="127.0.0.1:9")), "127.0.0.1", 0)
        url = f"http://127.0.0.1:{await server.start()}"
        async with ClientSession() as session:
            texts = [await (await session.get(f"{url}{path}")).text() for path in ("/readyz", "/metrics")]
        await server.stop()
        return texts

    ready, metrics = asyncio.run(pages())
    assert "it waits for the broker at 127.0.0.1:9" in ready
    assert "\nanabranch_ready 0.0\n" in metrics
