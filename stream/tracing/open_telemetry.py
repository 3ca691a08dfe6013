"""Spans by OpenTelemetry, with the names and attributes of its conventions for messaging. Needs the extra `tracing`.

A span of each click would be most of the work of a worker. So spans are those of batches, and link to the clicks that
are in a recorded trace. Only such a click gets a span of its own in its trace: `create`, from the read of its batch to
the acknowledgement of its recommendation, which carries this span as its context.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import islice
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stream.config import Config
from stream.kafka.rarely import Rarely
from stream.tracing.headers import Trace, TraceHeaders
from stream.tracing.spans import MAX_LINKS, Spans

log = logging.getLogger("anabranch.tracing")

EXPORT_WITHIN_S = 5.0
CLOSE_WITHIN_S = 2.0
"""How long a worker that ends waits for the last spans to be taken."""

_propagator = TraceContextTextMapPropagator()


class ExportingSpans(Spans):
    """Makes spans, and hands them to the provider."""

    def __init__(self, config: Config, provider: TracerProvider) -> None:
        self._clicks, self._recommendations = config.topics.clicks, config.topics.recommendations
        self._group, self._provider = config.group, provider
        self._tracer = provider.get_tracer("anabranch", version("anabranch"))

    @contextlib.contextmanager
    def process(self, partition: int, records: int, traces: Iterable[Trace]) -> Iterator[None]:
        """As in `Spans`."""
        attributes = self._messaging("process", "process", self._clicks, partition, records)
        attributes["messaging.consumer.group.name"] = self._group
        with self._batch(f"process {self._clicks}", SpanKind.CONSUMER, attributes, _links(traces)):
            yield

    @contextlib.contextmanager
    def rank(self, partition: int, users: int, traces: Iterable[Trace]) -> Iterator[None]:
        """As in `Spans`."""
        attributes = {"anabranch.partition": partition, "anabranch.users": users}
        with self._batch("rank", SpanKind.INTERNAL, attributes, _links(traces)):
            yield

    @contextlib.contextmanager
    def send(self, partition: int, messages: int, traces: Mapping[int, Trace]) -> Iterator[dict[int, TraceHeaders]]:
        """As in `Spans`."""
        headers = {user: trace.headers for user, trace in traces.items()}
        created: list[Span] = []
        for user, trace in traces.items():
            if trace.sampled:
                span = self._create(partition, trace)
                created.append(span)
                headers[user] = _injected(span)
        attributes = self._messaging("send", "send", self._recommendations, None, messages)
        links = [Link(span.get_span_context()) for span in created[:MAX_LINKS]]
        try:
            with self._batch(f"send {self._recommendations}", SpanKind.CLIENT, attributes, links):
                yield headers
        except BaseException:
            for span in created:
                span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            for span in created:
                span.end()

    def close(self) -> None:
        """As in `Spans`."""
        # The provider waits for a collector that does not answer, without a limit that holds.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True, name="last spans")
        closing.start()
        closing.join(CLOSE_WITHIN_S)

    def _create(self, partition: int, trace: Trace) -> Span:
        """The span of one recommendation, in the trace of its click."""
        attributes = self._messaging("create", "create", self._recommendations, None, None)
        attributes |= {"anabranch.click.partition": partition, "anabranch.click.offset": trace.offset}
        name = f"create {self._recommendations}"
        return self._tracer.start_span(
            name, _context(trace), SpanKind.PRODUCER, attributes, start_time=trace.read_ns or None
        )

    @contextlib.contextmanager
    def _batch(self, name: str, kind: SpanKind, attributes: dict[str, Any], links: list[Link]) -> Iterator[None]:
        span = self._tracer.start_span(name, None, kind, attributes, links)
        try:
            yield
        except BaseException as error:
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            span.end()

    @staticmethod
    def _messaging(
        operation: str, kind: str, topic: str, partition: int | None, messages: int | None
    ) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            "messaging.system": "kafka",
            "messaging.operation.name": operation,
            "messaging.operation.type": kind,
            "messaging.destination.name": topic,
        }
        if partition is not None:
            attributes["messaging.destination.partition.id"] = str(partition)
        if messages is not None:
            attributes["messaging.batch.message_count"] = messages
        return attributes


class CarefulExporter:
    """Exports, and logs in one line, rarely, that spans are lost: a collector that is away must not fill the log."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint, self._rarely = endpoint, Rarely()
        self._exporter = OTLPSpanExporter(endpoint, timeout=EXPORT_WITHIN_S)
        self.shutdown, self.force_flush = self._exporter.shutdown, self._exporter.force_flush

    def export(self, spans: Any) -> Any:
        """Send spans to the collector."""
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS and self._rarely.may_log():
            log.warning("%s takes no spans (tracing.endpoint): they are lost, and nothing else is", self._endpoint)
        return result


def exporting_spans(config: Config, instance: str) -> Spans:
    """Spans that go to `tracing.endpoint`. The standard variables OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS,
    OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES count."""
    resource = Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", "anabranch"),
            "service.instance.id": instance,
            "service.version": version("anabranch"),
        }
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter: Any = CarefulExporter(url_of(config.tracing.endpoint))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return ExportingSpans(config, provider)


def url_of(endpoint: str) -> str:
    """The URL that spans are sent to: OTLP's path is added to one that has none."""
    rest = endpoint.partition("://")[2]
    return endpoint if rest.rstrip("/").count("/") else f"{endpoint.rstrip('/')}/v1/traces"


def _context(trace: Trace) -> Context:
    return _propagator.extract({name: value.decode() for name, value in trace.headers})


def _links(traces: Iterable[Trace]) -> list[Link]:
    sampled = islice((trace for trace in traces if trace.sampled), MAX_LINKS)
    return [Link(get_current_span(_context(trace)).get_span_context()) for trace in sampled]


def _injected(span: Span) -> TraceHeaders:
    headers: dict[str, str] = {}
    _propagator.inject(headers, set_span_in_context(span))
    return tuple((name, value.encode()) for name, value in headers.items())
