"""An open-loop load generator for HTTP: requests are sent when they are due, whatever became of those before.

A latency is counted from when the request was due, so that a server that stands still is charged for every request that
came meanwhile (no coordinated omission). Arrivals are a Poisson process. Each request has a connection for itself while
it runs; idle connections are used again.
"""

import asyncio
import json
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple


class Done(NamedTuple):
    """One request that has ended."""

    latency_s: float
    late_s: float
    """How late the generator itself sent it."""
    status: int
    body: bytes


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, pool: list["Connection"]) -> None:
        self._pool, self._received = pool, b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def request(self, message: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Send a request; the result is its status and body."""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        lower = head.lower()
        length = int(lower.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length or self._answer is None:
            return
        answer, self._answer, self._received = self._answer, None, b""
        if b"connection: close" not in lower:
            self._pool.append(self)
        if not answer.done():
            answer.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._pool:
            self._pool.remove(self)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((0, b""))


def get(path: str) -> bytes:
    """A GET as it is on the wire."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post(path: str, document: object, token: str) -> bytes:
    """A POST of JSON as it is on the wire."""
    body = json.dumps(document).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def load(host: str, port: int, requests: Sequence[bytes], per_s: float, seed: int = 0) -> list[Done]:
    """Send all requests at this rate, and wait for their ends."""
    loop, pool = asyncio.get_running_loop(), list[Connection]()
    drawn, due = random.Random(seed), time.perf_counter() + 0.5
    running: list[asyncio.Task[Done]] = []

    async def one(message: bytes, due: float) -> Done:
        late = time.perf_counter() - due
        try:
            if pool:
                connection = pool.pop()
            else:
                _, connection = await loop.create_connection(lambda: Connection(pool), host, port)
            status, body = await connection.request(message)
        except OSError:
            status, body = 0, b""
        return Done(time.perf_counter() - due, late, status, body)

    for message in requests:
        due += drawn.expovariate(per_s)
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        running.append(asyncio.create_task(one(message, due)))
    done = [await task for task in running]
    for connection in pool:
        connection.transport.close()
    return done


def summary(done: Sequence[Done]) -> dict[str, Any]:
    """Percentiles of the latencies in ms, and what was answered. Raises ValueError where no answer is one."""
    if not any(d.status in (200, 202) for d in done):
        raise ValueError(f"every request was refused, the first with {done[0].status}: {done[0].body[:300]!r}")
    latencies = sorted(d.latency_s * 1000 for d in done)
    cuts = statistics.quantiles(latencies, n=1000)
    answers: dict[str, int] = {}
    for d in done:
        kind = str(d.status)
        if d.status == 200:
            document = json.loads(d.body)
            kind = f"200 {document.get('fallback') or 'owner'}, {document.get('source')}"
        answers[kind] = answers.get(kind, 0) + 1
    return {
        "p50_ms": round(cuts[499], 1),
        "p90_ms": round(cuts[899], 1),
        "p99_ms": round(cuts[989], 1),
        "p99.9_ms": round(cuts[998], 1),
        "max_ms": round(latencies[-1], 1),
        "generator_late_p99_ms": round(statistics.quantiles([d.late_s * 1000 for d in done], n=100)[98], 1),
        "answers": answers,
    }
