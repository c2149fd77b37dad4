"""One row a request, for spreadsheets and data frames: CSV and JSON lines."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import msgspec

from anyserve.telemetry.export.requests import TracedRequest, WallClock
from anyserve.telemetry.trace_model import HOPPING, RECOVERING, SegmentKind

ROW_SCHEMA: Final = "anyserve.request/1"
_NS_PER_MS = 1e6


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Times in milliseconds; unknown is null (CSV: empty). `docs/telemetry.md`."""

    id: str
    at: str
    """When it was meant to be sent: UTC, ISO 8601."""
    stream: str
    phase: str
    asked: str
    capability: str
    entry: str
    served_by: str | None
    outcome: str | None
    code: str | None
    finish: str | None
    priority: int
    prompt_tokens: int
    max_tokens: int
    output_tokens: int
    hops: int
    delegations: int
    recoveries: int
    ttft_ms: float | None
    tpot_ms: float | None
    e2e_ms: float | None
    queue_ms: float
    engine_wait_ms: float
    prefill_ms: float
    decode_ms: float
    transit_ms: float
    recovery_ms: float
    client_delay_ms: float


def rows(requests: Iterable[TracedRequest], clock: WallClock) -> Iterator[Row]:
    """The row of each request."""
    return (_row(request, clock) for request in requests)


def write_csv(found: Iterable[Row], file: TextIO) -> int:
    """Write rows as CSV with a header; returns how many.

    Text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Row.__struct_fields__)
    count = 0
    for count, row in enumerate(found, 1):  # noqa: B007 - the last one is the result
        writer.writerow([_cell(value) for value in msgspec.structs.astuple(row)])
    return count


def write_jsonl(found: Iterable[Row], file: TextIO) -> int:
    """Write rows as one JSON object a line; returns how many."""
    count = 0
    for count, row in enumerate(found, 1):  # noqa: B007 - the last one is the result
        file.write(msgspec.json.encode(row).decode() + "\n")
    return count


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"}:
        return f"'{value}"
    return value


def _row(request: TracedRequest, clock: WallClock) -> Row:
    trace, offered, outcome = request.trace, request.offered, request.outcome
    return Row(
        id=trace.id,
        at=_iso(clock.at_ns(request.boot, trace.intended_ns)),
        stream=offered.stream,
        phase=offered.phase,
        asked=trace.asked,
        capability=request.capability,
        entry=trace.entry,
        served_by=trace.served_by,
        outcome=trace.outcome,
        code=trace.code,
        finish=None if outcome is None else outcome.finish,
        priority=offered.priority,
        prompt_tokens=trace.prompt_tokens,
        max_tokens=trace.max_tokens,
        output_tokens=trace.n_tokens,
        hops=trace.hops,
        delegations=trace.delegations,
        recoveries=trace.recoveries,
        ttft_ms=_ms(trace.first_token_ns),
        tpot_ms=_tpot_ms(request),
        e2e_ms=None if outcome is None else _ms(trace.total_ns),
        queue_ms=_time(request.waited_ns()),
        engine_wait_ms=_time(request.time_in(SegmentKind.ENGINE_WAIT)),
        prefill_ms=_time(request.time_in(SegmentKind.PREFILL)),
        decode_ms=_time(request.time_in(SegmentKind.DECODE)),
        transit_ms=_time(request.time_in(*HOPPING)),
        recovery_ms=_time(request.time_in(*RECOVERING)),
        client_delay_ms=_time(request.time_in(SegmentKind.CLIENT_DELAY)),
    )


def _tpot_ms(request: TracedRequest) -> float | None:
    outcome = request.outcome
    if outcome is None or outcome.first_ns is None or outcome.n_tokens <= 1:
        return None
    return _ms((outcome.end_ns - outcome.first_ns) / (outcome.n_tokens - 1))


def _time(duration_ns: float) -> float:
    return round(duration_ns / _NS_PER_MS, 6)


def _ms(duration_ns: float | None) -> float | None:
    return None if duration_ns is None else _time(duration_ns)


def _iso(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).isoformat(timespec="microseconds")
