"""Spans to a collector, over OTLP (HTTP with protobuf). Needs the extra `otel`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from anyserve.errors import AnyServeError, MissingDependencyError
from anyserve.telemetry.export.spans import PlannedSpan, SpanNote
from anyserve.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan

BATCH_SPANS: Final = 512
TIMEOUT_S: Final = 10.0


class ExportFailedError(AnyServeError):
    """The collector did not take the spans."""

    exit_code = 3


class OtlpSender:
    """Sends spans to one collector, in batches; blocks while it does.

    Args:
        endpoint: the collector's address for traces, `http://host:4318/v1/traces`; a bare
            `http://host:4318` gets the path. None: as `OTEL_EXPORTER_OTLP_*` in the environment
            say, else localhost. Headers and certificates are read from there too.
        resource: what all spans share: the service's name and the like.

    Raises:
        MissingDependencyError: the extra `otel` is not installed.
    """

    def __init__(
        self, endpoint: str | None = None, resource: Mapping[str, str] | None = None
    ) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - an extra
                OTLPSpanExporter,
            )
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        except ImportError:
            raise MissingDependencyError(
                "OpenTelemetry is not installed", code="no_opentelemetry",
                hint="pip install 'anyserve[otel]'",
            ) from None  # fmt: skip
        self._endpoint = None if endpoint is None else traces_url(endpoint)
        self._exporter = OTLPSpanExporter(endpoint=self._endpoint, timeout=TIMEOUT_S)
        shared = {"service.name": "anyserve", "service.version": __version__, **(resource or {})}
        self._resource = Resource(shared)

    def send(self, spans: Iterable[PlannedSpan]) -> int:
        """Send spans, in batches; returns how many.

        Raises:
            ExportFailedError: the collector is not there or refuses.
        """
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415 - an extra

        count = 0
        for batch in _batches(spans):
            ready = [_readable(span, self._resource) for span in batch]
            if self._exporter.export(ready) is not SpanExportResult.SUCCESS:
                raise ExportFailedError(
                    f"the collector at {self._shown()} did not take the spans",
                    code="otlp_refused",
                    hint="is it up, and does it take OTLP over HTTP (port 4318)?",
                )
            count += len(batch)
        return count

    def close(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _shown(self) -> str:
        return self._endpoint or "the address of OTEL_EXPORTER_OTLP_ENDPOINT"


def traces_url(endpoint: str) -> str:
    """The address for traces of a collector."""
    base = endpoint.rstrip("/")
    return base if "/" in base.partition("://")[2] else f"{base}/v1/traces"


def _batches(spans: Iterable[PlannedSpan]) -> Iterator[Sequence[PlannedSpan]]:
    rest = iter(spans)
    while batch := list(islice(rest, BATCH_SPANS)):
        yield batch


def _readable(span: PlannedSpan, resource: Resource) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415
    from opentelemetry.trace import SpanContext, SpanKind, TraceFlags  # noqa: PLC0415
    from opentelemetry.trace.status import Status, StatusCode  # noqa: PLC0415

    def context(span_id: int) -> SpanContext:
        flags = TraceFlags(TraceFlags.SAMPLED)
        return SpanContext(span.trace_id, span_id, is_remote=False, trace_flags=flags)

    failed = Status(StatusCode.ERROR, span.error) if span.error is not None else Status()
    return ReadableSpan(
        name=span.name,
        context=context(span.span_id),
        parent=None if span.parent is None else context(span.parent),
        resource=resource,
        attributes=span.attributes,
        events=[_event(note) for note in span.notes],
        kind=SpanKind.SERVER if span.parent is None else SpanKind.INTERNAL,
        status=failed,
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=InstrumentationScope("anyserve", __version__),
    )


def _event(note: SpanNote) -> Event:
    from opentelemetry.sdk.trace import Event  # noqa: PLC0415 - an extra

    return Event(note.name, note.attributes, note.at_ns)
