"""Spans, and their way to a collector of our own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from anyserve.telemetry.export import otlp
from anyserve.telemetry.export.otlp import ExportFailedError, OtlpSender, traces_url
from anyserve.telemetry.export.requests import WallClock, traced_requests
from anyserve.telemetry.export.spans import PlannedSpan, plan_spans
from anyserve.telemetry.storyteller import Leg, Storyteller

MS = 1_000_000


def spans(run: str = "r1") -> list[PlannedSpan]:
    """Of one request that was delegated, and one that was recovered."""
    teller = Storyteller()
    legs = [Leg("s1", routed=False, end="delegate"), Leg("h1", "decode.heavy", queue_ns=3 * MS)]
    teller.request("p/1/0", legs)
    teller.request("p/1/1", [Leg("s1", end="lost"), Leg("s1")], intended_ns=10**10)
    clock = WallClock(teller.envelopes)
    return [
        span
        for request in traced_requests(teller.envelopes)
        for span in plan_spans(request, clock, run)
    ]


def test_the_root_is_the_request_in_the_words_of_the_conventions() -> None:
    root = spans()[0]

    assert root.parent is None
    assert root.name == "text_completion decode"
    assert root.attributes["gen_ai.operation.name"] == "text_completion"
    assert root.attributes["gen_ai.request.model"] == "decode"
    assert root.attributes["gen_ai.response.model"] == "decode.heavy"
    assert root.attributes["gen_ai.usage.input_tokens"] == 64
    assert root.attributes["gen_ai.usage.output_tokens"] == 11
    assert root.attributes["anyserve.hops"] == 2
    assert [note.name for note in root.notes] == ["anyserve.routed", "anyserve.delegate"]
    assert root.error is None


def test_hops_hold_their_segments_and_nothing_leaves_its_parent() -> None:
    found = spans()
    by_id = {span.span_id: span for span in found}
    assert len(by_id) == len(found)
    hops = [span.name for span in found if span.name.startswith("hop")]

    assert hops == ["hop s1", "hop h1", "hop s1", "hop s1"]
    for span in found:
        if span.parent is not None:
            parent = by_id[span.parent]
            assert parent.trace_id == span.trace_id
            assert parent.start_ns <= span.start_ns <= span.end_ns <= parent.end_ns
    decode = next(span for span in found if span.name == "decode")
    assert decode.parent is not None
    assert by_id[decode.parent].name == "hop h1"


def test_a_lost_hop_is_an_error_and_its_request_is_not() -> None:
    found = spans()

    assert [span.error for span in found if span.name.startswith("hop")] == [
        None, None, "lost", None,
    ]  # fmt: skip
    assert [span.error for span in found if span.parent is None] == [None, None]


def test_ids_depend_on_run_and_request_only() -> None:
    assert spans() == spans()
    assert len({spans(run)[0].trace_id for run in ("r1", "r2")}) == 2


class Collector(HTTPServer):
    """Takes OTLP over HTTP."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taken: list[ExportTraceServiceRequest] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.append(self.path)
        self.server.taken.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_collector_gets_every_span(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "BATCH_SPANS", 10)
    planned = spans()
    sender = OtlpSender(collector.url, {"anyserve.run.id": "r1"})
    try:
        assert sender.send(planned) == len(planned)
    finally:
        sender.close()

    assert set(collector.paths) == {"/v1/traces"}
    assert len(collector.taken) > 1
    resource = collector.taken[0].resource_spans[0].resource
    shared = {pair.key: pair.value.string_value for pair in resource.attributes}
    assert (shared["service.name"], shared["anyserve.run.id"]) == ("anyserve", "r1")
    taken = [
        span
        for request in collector.taken
        for resource_spans in request.resource_spans
        for scope in resource_spans.scope_spans
        for span in scope.spans
    ]
    assert {span.span_id for span in taken} == {one.span_id.to_bytes(8, "big") for one in planned}
    root = next(span for span in taken if not span.parent_span_id)
    assert root.kind == root.SPAN_KIND_SERVER
    assert root.end_time_unix_nano - root.start_time_unix_nano == (
        planned[0].end_ns - planned[0].start_ns
    )


def test_a_collector_that_refuses_is_named(collector: Collector) -> None:
    collector.status = 400
    sender = OtlpSender(collector.url)
    try:
        with pytest.raises(ExportFailedError, match="did not take the spans"):
            sender.send(spans())
    finally:
        sender.close()


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
    ],
)
def test_a_bare_address_gets_the_path(given: str, used: str) -> None:
    assert traces_url(given) == used
