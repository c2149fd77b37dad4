"""Requests of handlers in traces: who asked for them, and what they asked for."""

from __future__ import annotations

import msgspec
import pytest

from anyserve.core.events import Envelope, RequestOffered
from anyserve.errors import UsageError
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.trace import build_trace, find_request, render_trace, to_json

PARENT, CHILD, OTHER = "player/1/1", "r1-calls/1/1", "r1-calls/1/2"


@pytest.fixture
def events() -> list[Envelope]:
    teller = Storyteller()
    teller.register("s1", {"decode": 512})
    teller.request(PARENT, [Leg("s1")])
    teller.request(CHILD, [Leg("s1")], intended_ns=2_000_000)
    teller.request(OTHER, [Leg("s1")], intended_ns=1_000_000)
    return [_placed(one) for one in teller.envelopes]


def _placed(one: Envelope) -> Envelope:
    """The two calls below the request of the traffic."""
    if not isinstance(one.event, RequestOffered):
        return one
    parent, stream = ("", "chat") if one.event.id == PARENT else (PARENT, "")
    offered = msgspec.structs.replace(one.event, parent=parent, stream=stream)
    return msgspec.structs.replace(one, event=offered)


def test_a_trace_lists_what_its_handler_asked_for(events: list[Envelope]) -> None:
    trace = build_trace(events, PARENT)

    assert [(one.id, one.at_ns, one.outcome) for one in trace.calls] == [
        (OTHER, 1_000_000, "completed"),
        (CHILD, 2_000_000, "completed"),
    ]
    text = render_trace(trace)
    lines = text[text.index("its handler asked for") :].splitlines()
    assert lines[1].split()[-2:] == ["completed", OTHER]
    assert to_json(trace)["calls"][0]["capability"] == "decode"


def test_a_call_says_who_asked_for_it(events: list[Envelope]) -> None:
    trace = build_trace(events, CHILD)

    assert (trace.parent, trace.calls) == (PARENT, ())
    assert f"asked for by the handler of {PARENT}" in render_trace(trace)


def test_a_call_that_has_not_ended_is_running(events: list[Envelope]) -> None:
    begun = [one for one in events if getattr(one.event, "id", "") != CHILD]
    begun += [one for one in events if isinstance(one.event, RequestOffered)]
    calls = {one.id: one for one in build_trace(begun, PARENT).calls}

    assert (calls[CHILD].outcome, calls[CHILD].duration_ns) == (None, None)
    assert calls[OTHER].outcome == "completed"


def test_a_number_means_the_traffic_s_request(events: list[Envelope]) -> None:
    assert find_request(events, "1") == PARENT
    assert find_request(events, "2") == OTHER
    assert find_request(events, CHILD) == CHILD
    children = [one for one in events if getattr(one.event, "id", "") != PARENT]
    doubled = children + [_renamed(one) for one in children]
    with pytest.raises(UsageError, match="2 requests end in '1'"):
        find_request(doubled, "1")


def _renamed(one: Envelope) -> Envelope:
    if not isinstance(one.event, RequestOffered):
        return one
    event = msgspec.structs.replace(one.event, id=one.event.id.replace("r1", "r2"))
    return msgspec.structs.replace(one, event=event)
