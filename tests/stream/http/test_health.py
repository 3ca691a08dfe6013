"""The health pages: what they answer, and how they take what is no request for them."""

import asyncio
import json
import socket
import time
import urllib.request

import pytest
from aiohttp import ClientSession, web

from stream.http.health import HEALTH_PATHS, Checks, add_health, waiting_app
from stream.http.server import CannotListen, HttpServer, serving_beside
from stream.metrics.instruments import WorkerInstruments
from stream.metrics.route import add_metrics
from stream.metrics.samples import make_registry


class Pages:
    """The pages of a process with the problems that a test sets."""

    def __init__(self) -> None:
        self.problems: dict[str, list[str]] = {path: [] for path in HEALTH_PATHS}
        self.app = web.Application()
        add_health(self.app, Checks(*(lambda path=path: self.problems[path] for path in HEALTH_PATHS)))
        add_metrics(self.app, make_registry("worker", lambda samples: None, WorkerInstruments()))

    async def answers(self, *requests: bytes) -> list[bytes]:
        """What a server of the pages answers to raw requests, each on a connection of its own."""
        server, found = HttpServer(self.app, "127.0.0.1", 0), []
        port = await server.start()
        try:
            for request in requests:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                found.append(await asyncio.wait_for(reader.read(1 << 20), 5))
                writer.close()
        finally:
            await server.stop()
        return found


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", *(headers or ["Host: x"]), "Connection: close", "", ""]).encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("path", HEALTH_PATHS)
def test_a_page_answers_200_or_503_with_what_is_missing(path):
    [well] = asyncio.run(Pages().answers(get(path)))
    assert (status(well), json.loads(well.partition(b"\r\n\r\n")[2])) == (200, {"status": "ok", "problems": []})
    pages = Pages()
    pages.problems[path] = ["partition 3 is opening, not answering"]
    [ill] = asyncio.run(pages.answers(get(path)))
    document = json.loads(ill.partition(b"\r\n\r\n")[2])
    assert (status(ill), document["problems"]) == (503, ["partition 3 is opening, not answering"])
    assert document["status"] != "ok"
    assert b"Cache-Control: no-store" in ill


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (get("/readyz", method="POST"), 405),
        (get("/readyz", method="DELETE"), 405),
        (get("/metrics", method="PUT"), 405),
        (get("/readyz", method="HEAD"), 200),
        (get("/"), 404),
        (get("/readyz/"), 404),
        (get("/../../etc/passwd"), 404),
        (get("/%2e%2e/%00"), 404),
        (get("/metrics?name=%ff"), 200),
        (get("/readyz", "Host: evil.example:99999"), 200),
        (get("/readyz", "Host: [::1"), 200),
        (get("/readyz", "Host: \x01\x02"), 400),
        (get("/readyz", "Content-Length: x"), 400),
        (get("/readyz", "Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (get("/" + "a" * 20_000), 400),
        (get("/readyz", "X: " + "a" * 20_000), 400),
        (get("/readyz", "Host: x", "Accept: \xff"), 200),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
    ],
)
def test_a_strange_request_gets_a_clean_answer_and_no_traceback(request_, expected, caplog):
    [answer, after] = asyncio.run(Pages().answers(request_, get("/livez")))
    assert (status(answer), status(after)) == (expected, 200)
    assert b"Traceback" not in answer
    assert "Traceback" not in caplog.text


def test_no_answer_names_the_software_below():
    for answer in asyncio.run(Pages().answers(get("/livez"), get("/metrics"), get("/nothing"))):
        head = answer.partition(b"\r\n\r\n")[0]
        assert b"Server: anabranch" in head
        assert b"aiohttp" not in head


def test_a_process_whose_event_loop_is_blocked_does_not_answer():
    """What asks waits for a time of its own choice, and then counts it as not alive."""

    async def run() -> None:
        server = HttpServer(Pages().app, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{await server.start()}/livez"
        asking = asyncio.create_task(asyncio.to_thread(urllib.request.urlopen, url, timeout=0.2))
        await asyncio.sleep(0)
        time.sleep(0.6)
        with pytest.raises(OSError, match="timed out"):
            await asking
        await server.stop()

    asyncio.run(run())


def test_the_page_of_metrics_is_prometheus_text():
    [answer] = asyncio.run(Pages().answers(get("/metrics")))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: text/plain; version=0.0.4" in head
    assert b"\nanabranch_build_info{" in body


@pytest.mark.parametrize("setting", ["worker.http", "trainer.http"])
def test_an_address_that_is_taken_is_an_error_for_people(setting):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = HttpServer(web.Application(), "127.0.0.1", port, setting=setting)
        with pytest.raises(CannotListen, match=rf"{setting} = '127.0.0.1:{port}': another process listens there"):
            asyncio.run(server.start())


def test_a_process_answers_while_it_waits_for_its_broker():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def ask() -> dict[str, int]:
        async with ClientSession() as session:
            found = {}
            for path in HEALTH_PATHS:
                async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                    found[path] = answer.status
        return found

    with serving_beside(waiting_app("it waits for the broker"), f"127.0.0.1:{port}", "worker.http"):
        assert asyncio.run(ask()) == {"/livez": 200, "/readyz": 503, "/startupz": 200}
    with socket.create_server(("127.0.0.1", port)):  # it has given the address back to the process itself
        pass
