"""A real worker on a real broker, asked over HTTP: it is ready, and its numbers are there."""

import re
import socket
import urllib.error
import urllib.request

import pytest

from tests.e2e.conftest import anabranch, run, until
from tests.e2e.test_click_to_recommendation import click

pytestmark = pytest.mark.broker


def get(url: str) -> tuple[int, str]:
    """Status and text of a page; 0 where nothing listens."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_a_worker_says_when_it_is_ready_and_what_it_has_done(config, producer):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = {"ANABRANCH_WORKER__HTTP": address}
    with anabranch(config, "worker", env=env):
        until(lambda: get(f"http://{address}/livez")[0] == 200)
        until(lambda: get(f"http://{address}/readyz")[0] == 200)
        assert get(f"http://{address}/startupz")[0] == 200
        health = run(config, "health", "--worker", env=env)
        assert (health.returncode, health.stdout) == (0, f"worker   ready (from http://{address}/readyz)\n")

        click(producer, config, "ann", "milk")
        click(producer, config, "bob", "bread")

        def page() -> str:
            return get(f"http://{address}/metrics")[1]

        answered = r'\nanabranch_recommendations_total{source="popularity"} [1-9]'
        until(lambda: re.search(answered, page()))
        found = page()
        applied = re.findall(r'\nanabranch_events_total{outcome="applied",partition="\d"} (\S+)', found)
        assert sum(map(float, applied)) == 2
        seconds = re.findall(r"\nanabranch_recommendation_latency_seconds_sum (\S+)", found)
        assert 0 < float(seconds[0]) < 60
