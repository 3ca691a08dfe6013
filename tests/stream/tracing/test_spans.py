"""The spans of a worker, as a collector gets them: names, attributes and links by OpenTelemetry's conventions."""

import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pytest

from stream.config import Config, TracingSettings
from stream.tracing.headers import Trace
from tests.stream.fakes import CLICKS, scenario_with, until
from tests.stream.kafka.test_decode import Record
from tests.stream.tracing.test_headers import OTHER, PARENT
from tests.stream.worker.test_pipeline import Shop
from tests.stream.worker.test_traces import click, sent_to

pytestmark = pytest.mark.ops
sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="no opentelemetry-sdk: pip install 'anabranch[tracing]'")
pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http",
    reason="no opentelemetry-exporter-otlp-proto-http: pip install 'anabranch[tracing]'",
)

from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402
from opentelemetry.trace import SpanKind, StatusCode  # noqa: E402

from stream.tracing.open_telemetry import ExportingSpans, url_of  # noqa: E402
from stream.tracing.spans import MAX_LINKS, Spans  # noqa: E402
from stream.tracing.start import start_spans  # noqa: E402
from stream.worker.pipeline import Pipeline  # noqa: E402

TRACE_ID, SPAN_ID = int(PARENT[3:35], 16), int(PARENT[36:52], 16)
TRACED, NOT_SAMPLED = (("traceparent", PARENT), ("tracestate", b"shop=1")), (("traceparent", OTHER),)


class Collected:
    """Spans that end in memory."""

    def __init__(self, config: Config) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = sdk.TracerProvider()
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.spans = ExportingSpans(config, self._provider)

    def named(self, name: str) -> list:
        """The ended spans of a name."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]


class TracedShop(Shop):
    """A worker with tracing on."""

    def __init__(self, config: Config, monkeypatch) -> None:
        super().__init__(config, monkeypatch)
        self.collected = Collected(config)
        self.pipeline = Pipeline(
            config, self.consumer, self.producer, self.assignment, self.recommender, self.lease,
            spans=self.collected.spans,
        )  # fmt: skip


@scenario_with
async def with_traced_shop(config, monkeypatch):
    """A `TracedShop` that owns its partition."""
    shop = TracedShop(config, monkeypatch)
    await shop.assign()
    return shop


async def answer(shop, *clicks: Record) -> None:
    """Let the worker apply the clicks and answer their users."""
    answering = shop.start(shop.pipeline.answer())
    await shop.poll({CLICKS: list(clicks)})
    await until(lambda: answering.done() or shop.store.answered() == len(clicks))


@with_traced_shop
async def test_a_batch_has_a_span_for_each_step_with_links_to_the_clicks_in_a_recorded_trace(shop):
    await answer(shop, click("ann", 0, TRACED), click("bob", 1, NOT_SAMPLED), click("cem", 2))
    [process] = shop.collected.named("process clicks")
    assert process.kind is SpanKind.CONSUMER
    assert dict(process.attributes) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "clicks",
        "messaging.destination.partition.id": "0",
        "messaging.consumer.group.name": "anabranch",
        "messaging.batch.message_count": 3,
    }
    [rank] = shop.collected.named("rank")
    [send] = shop.collected.named("send recommendations")
    assert send.kind is SpanKind.CLIENT
    assert send.attributes["messaging.batch.message_count"] == 3
    for span in (process, rank):
        assert [(link.context.trace_id, link.context.span_id) for link in span.links] == [(TRACE_ID, SPAN_ID)]
        assert span.parent is None
    assert rank.attributes["anabranch.users"] == 3


@with_traced_shop
async def test_a_click_in_a_recorded_trace_gets_a_span_there_and_its_recommendation_carries_it(shop):
    await answer(shop, click("ann", 0, TRACED), click("bob", 1, NOT_SAMPLED), click("cem", 2))
    [create] = shop.collected.named("create recommendations")
    assert create.kind is SpanKind.PRODUCER
    assert (create.context.trace_id, create.parent.span_id) == (TRACE_ID, SPAN_ID)
    assert create.attributes["anabranch.click.offset"] == 0
    [process], [send] = shop.collected.named("process clicks"), shop.collected.named("send recommendations")
    assert create.start_time <= process.start_time
    assert create.end_time >= send.end_time
    assert [link.context.span_id for link in send.links] == [create.context.span_id]
    users = [key for key, _ in shop.recommendations()]
    headers = dict(zip(users, sent_to(shop, "recommendations"), strict=True))
    assert headers[b"ann"] == {
        "traceparent": b"00-%032x-%016x-01" % (TRACE_ID, create.context.span_id),
        "tracestate": b"shop=1",
    }
    assert headers[b"bob"] == {"traceparent": OTHER}, "nobody records it: it is passed on as it came"
    assert headers[b"cem"] == {}


def test_a_failed_step_says_so():
    collected = Collected(Config())
    with pytest.raises(OSError), collected.spans.send(0, 1, {1: Trace(TRACED)}):
        raise OSError("no")
    for name in ("send recommendations", "create recommendations"):
        [span] = collected.named(name)
        assert span.status.status_code is StatusCode.ERROR


def test_a_batch_links_to_a_bounded_number_of_clicks():
    collected = Collected(Config())
    with collected.spans.process(0, 1000, [Trace(TRACED)] * 1000):
        pass
    assert len(collected.named("process clicks")[0].links) == MAX_LINKS


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://collector.example/otlp/v1/traces", "https://collector.example/otlp/v1/traces"),
    ],
)
def test_otlps_path_is_added_to_an_endpoint_without_one(endpoint, url):
    assert url_of(endpoint) == url


def traced_config(port: int) -> Config:
    return msgspec.structs.replace(Config(), tracing=TracingSettings(endpoint=f"http://127.0.0.1:{port}"))


def test_spans_arrive_at_a_collector_before_a_worker_ends():
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        spans = start_spans(traced_config(server.server_port), "worker/shop-7")
        with spans.rank(0, 1, []):
            pass
        spans.close()
        server.shutdown()
    [(path, body)] = received
    assert path == "/v1/traces"
    assert b"worker/shop-7" in body
    assert b"anabranch" in body


def test_a_collector_that_is_away_keeps_no_worker_from_ending():
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port
    spans = start_spans(traced_config(port), "worker/0")
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    try:
        for _ in range(3):
            with spans.rank(0, 1, []):
                pass
        closing = threading.Thread(target=spans.close)
        closing.start()
        closing.join(10)
        assert not closing.is_alive()
    finally:
        logging.getLogger("opentelemetry").setLevel(logging.NOTSET)


def test_without_an_endpoint_no_span_is_made():
    assert type(start_spans(Config(), "worker/0")) is Spans
