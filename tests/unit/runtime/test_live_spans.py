from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import pytest

from anyserve.core.events import AttemptEnded
from anyserve.errors import AnyServeError
from anyserve.runtime.recorder import spans as live
from anyserve.runtime.recorder.spans import LATE_S, LiveSpans, live_spans
from anyserve.telemetry.export.requests import WallClock, traced_requests
from anyserve.telemetry.export.spans import PlannedSpan, plan_spans
from anyserve.telemetry.storyteller import Leg, Storyteller


class Collector:
    """Takes spans, or refuses them."""

    def __init__(self) -> None:
        self.spans: list[PlannedSpan] = []
        self.refuses = False
        self.closed = False

    def send(self, spans: Iterable[PlannedSpan]) -> int:
        if self.refuses:
            raise AnyServeError("the collector did not take the spans", code="otlp_refused")
        self.spans += spans
        return len(self.spans)

    def close(self) -> None:
        self.closed = True

    @property
    def roots(self) -> list[str]:
        return [str(one.attributes["anyserve.request.id"]) for one in self.spans if not one.parent]


def told(count: int = 2) -> Storyteller:
    teller = Storyteller()
    for number in range(count):
        legs = [Leg("s1", routed=False, end="delegate"), Leg("h1", "decode.heavy")]
        teller.request(f"p/1/{number}", legs, intended_ns=number * 10**9)
    return teller


async def idle(spans: LiveSpans) -> None:
    """Return once nothing is being sent."""
    if spans._sending is not None:
        await spans._sending


async def test_a_request_is_sent_once_its_late_events_have_come() -> None:
    now = [100.0]
    collector = Collector()
    spans = LiveSpans(collector, "r1", lambda: now[0])
    envelopes = told().envelopes
    late = [one for one in envelopes if isinstance(one.event, AttemptEnded)]
    spans.take(one for one in envelopes if one not in late)
    spans.send_due()
    await idle(spans)
    assert collector.spans == []

    spans.take(late)
    now[0] += LATE_S
    spans.send_due()
    await idle(spans)

    assert collector.roots == ["p/1/0", "p/1/1"]
    clock = WallClock(envelopes)
    exported = [span for one in traced_requests(envelopes) for span in plan_spans(one, clock, "r1")]
    assert collector.spans == exported  # the same, ids and all, as `anyserve export` sends later


async def test_closing_sends_what_is_left() -> None:
    collector = Collector()
    spans = LiveSpans(collector, "r1", lambda: 0.0)
    spans.take(told(300).envelopes)

    await spans.close()

    assert len(collector.roots) == 300
    assert collector.closed


async def test_a_collector_that_is_away_costs_traces_and_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    collector = Collector()
    collector.refuses = True
    spans = LiveSpans(collector, "r1", lambda: 0.0)
    spans.take(told(300).envelopes)

    with caplog.at_level(logging.WARNING):
        await spans.close()

    assert spans.dropped == 300
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "the collector did not take the spans",
        "the traces of 300 requests were not sent",
    ]


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_WAITING", 5)
    collector = Collector()
    spans = LiveSpans(collector, "r1", lambda: 0.0)
    spans.take(told(8).envelopes)

    await spans.close()

    assert (len(collector.roots), spans.dropped) == (5, 3)


async def test_nothing_is_sent_unless_the_environment_says_where() -> None:
    assert live_spans({}, "r1") is None
    assert live_spans({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, "r1") is None
    made = live_spans({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, "r1")
    assert made is not None
    await asyncio.to_thread(made._sender.close)
