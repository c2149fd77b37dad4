"""A request's trace as a tree of spans, named as OpenTelemetry's conventions for generative AI say.

The root is the request; below it stand its hops (one a replica that had it) and the stretches
between them; below a hop its queue, engine wait, prefill and decode. Nothing here needs
OpenTelemetry: `otlp` sends these spans.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from typing import Final

from anyserve.telemetry.export.requests import TracedRequest, WallClock
from anyserve.telemetry.trace_model import HOPPING, Comeback, Decision, Segment, Trace

PROVIDER: Final = "anyserve"
Value = str | int | float | bool | Sequence[str]


@dataclass(frozen=True, slots=True)
class SpanNote:
    """Something at one moment of a span."""

    name: str
    at_ns: int
    attributes: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class PlannedSpan:
    """One span; times in ns since 1970. `parent` None: the root. `error`: why it failed."""

    trace_id: int
    span_id: int
    parent: int | None
    name: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    notes: tuple[SpanNote, ...] = ()
    error: str | None = None


def plan_spans(request: TracedRequest, clock: WallClock, run: str) -> list[PlannedSpan]:
    """The spans of a request, its root first. The same run and request give the same ids."""
    return list(_Planner(request, clock, run).spans())


class _Planner:
    def __init__(self, request: TracedRequest, clock: WallClock, run: str) -> None:
        self._request = request
        self._start_ns = clock.at_ns(request.boot, request.trace.intended_ns)
        digest = sha256(f"{run}\0{request.trace.id}".encode()).digest()
        self._trace_id = int.from_bytes(digest[:16], "big") or 1
        self._seed = digest
        self._made = 0

    def spans(self) -> Iterator[PlannedSpan]:
        trace = self._request.trace
        operation = "embeddings" if trace.max_tokens == 0 else "text_completion"
        error = None
        if trace.outcome not in {None, "completed"}:
            error = trace.message or trace.code or trace.outcome
        root = self._span(
            None,
            f"{operation} {trace.asked}",
            (0, trace.total_ns),
            _request_attributes(self._request, operation),
            notes=(*self._decided(trace.decisions), *self._came_back(trace)),
            error=error,
        )
        yield root
        for attempt, group in groupby(trace.segments, key=lambda one: one.attempt):
            yield from self._stretch(root.span_id, attempt, list(group))

    def _stretch(
        self, root: int, attempt: int | None, segments: list[Segment]
    ) -> Iterator[PlannedSpan]:
        parent = root
        if attempt is not None:
            hop = self._hop(root, attempt, segments)
            yield hop
            parent = hop.span_id
        for one in segments:
            attributes: dict[str, Value] = {"anyserve.where": one.where}
            if one.note:
                attributes["anyserve.note"] = one.note
            if one.estimated:
                attributes["anyserve.estimated"] = True
            yield self._span(parent, one.name, (one.start_ns, one.end_ns), attributes)

    def _hop(self, root: int, attempt: int, segments: list[Segment]) -> PlannedSpan:
        trace = self._request.trace
        decision = next((one for one in trace.decisions if one.attempt == attempt), None)
        back = next((one for one in trace.comebacks if one.attempt == attempt), None)
        at_replica = (one.where for one in segments if one.kind not in HOPPING)
        replica = next(at_replica, "?") if decision is None else decision.replica
        attributes: dict[str, Value] = {
            "anyserve.attempt": attempt,
            "anyserve.replica": replica,
        }
        if decision is not None:
            attributes["anyserve.capability"] = decision.capability
        if back is not None:
            attributes["anyserve.way_back"] = back.kind
            attributes["anyserve.way_back.reason"] = back.reason
        error = "lost" if back is not None and back.kind == "lost" else None
        between_ns = (segments[0].start_ns, segments[-1].end_ns)
        return self._span(root, f"hop {replica}", between_ns, attributes, error=error)

    def _decided(self, decisions: Sequence[Decision]) -> Iterator[SpanNote]:
        for one in decisions:
            attributes: dict[str, Value] = {
                "anyserve.attempt": one.attempt,
                "anyserve.replica": one.replica,
                "anyserve.capability": one.capability,
                "anyserve.policy": one.policy,
                "anyserve.reason": one.reason,
                "anyserve.eligible": one.eligible,
                "anyserve.excluded": [f"{reason}: {count}" for reason, count in one.excluded],
            }
            yield SpanNote("anyserve.routed", self._start_ns + one.at_ns, attributes)

    def _came_back(self, trace: Trace) -> Iterator[SpanNote]:
        for back in trace.comebacks:
            ends = [one.end_ns for one in trace.segments if one.attempt == back.attempt]
            at_ns = self._start_ns + (max(ends) if ends else 0)
            yield SpanNote(f"anyserve.{back.kind}", at_ns, _comeback_attributes(back))

    def _span(
        self,
        parent: int | None,
        name: str,
        between_ns: tuple[int, int],
        attributes: Mapping[str, Value],
        *,
        notes: tuple[SpanNote, ...] = (),
        error: str | None = None,
    ) -> PlannedSpan:
        self._made += 1
        digest = sha256(self._seed + self._made.to_bytes(4, "big")).digest()
        return PlannedSpan(
            trace_id=self._trace_id,
            span_id=int.from_bytes(digest[:8], "big") or 1,
            parent=parent,
            name=name,
            start_ns=self._start_ns + between_ns[0],
            end_ns=self._start_ns + between_ns[1],
            attributes=attributes,
            notes=notes,
            error=error,
        )


def _request_attributes(request: TracedRequest, operation: str) -> dict[str, Value]:
    trace = request.trace
    known: dict[str, Value | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": trace.asked,
        "gen_ai.response.model": request.capability,
        "gen_ai.response.id": trace.id,
        "gen_ai.request.max_tokens": trace.max_tokens or None,
        "gen_ai.usage.input_tokens": trace.prompt_tokens,
        "gen_ai.usage.output_tokens": trace.n_tokens,
        "gen_ai.response.finish_reasons": _finish(request),
        "gen_ai.response.time_to_first_chunk": (
            None if trace.first_token_ns is None else trace.first_token_ns / 1e9
        ),
        "error.type": None if trace.outcome in {None, "completed"} else trace.code or trace.outcome,
        "anyserve.request.id": trace.id,
        "anyserve.origin": trace.origin,
        "anyserve.entry": trace.entry,
        "anyserve.outcome": trace.outcome,
        "anyserve.served_by": trace.served_by,
        "anyserve.hops": trace.hops,
        "anyserve.delegations": trace.delegations,
        "anyserve.recoveries": trace.recoveries,
        "anyserve.clock_skew": trace.clock_skew or None,
    }
    return {name: value for name, value in known.items() if value is not None}


def _finish(request: TracedRequest) -> list[str] | None:
    finish = None if request.outcome is None else request.outcome.finish
    return [finish] if finish else None


def _comeback_attributes(back: Comeback) -> dict[str, Value]:
    said = {
        "anyserve.replica": back.replica,
        "anyserve.reason": back.reason,
        "anyserve.detail": back.detail,
        "anyserve.from_capability": back.from_capability,
        "anyserve.to_capability": back.to_capability,
    }
    found: dict[str, Value] = {name: text for name, text in said.items() if text}
    return {"anyserve.attempt": back.attempt, **found}
