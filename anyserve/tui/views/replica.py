"""One replica in full: facts, up to five minutes of load, and where its time goes."""

from __future__ import annotations

from collections.abc import Sequence

from anyserve.telemetry.views import EngineTimes, LoadPoint, ReplicaView, TrendPoint
from anyserve.tui.frame import Frame
from anyserve.tui.numbers import ms, percent, rate
from anyserve.tui.spans import EMPTY, Line, Span, clip, line
from anyserve.tui.views.look import Look, state_cell
from anyserve.tui.widgets.charts import resample, spark, split_bar

_LABEL = 9
_VALUE = 21
_LENGTHS_S = {60: "the last 60 s", 120: "the last 2 min", 300: "the last 5 min"}
"""A plot covers the shortest of these that has room for all that is known."""
_NS_PER_S = 1_000_000_000
_LEAST_CHART = 10
_ABOVE = 1.001
"""The highest value is no limit that was reached."""


def facts_lines(replica: ReplicaView, frame: Frame, width: int, look: Look) -> list[Line]:
    """What it is, how it is loaded, where its time goes."""
    lines = [*_identity(replica, frame, look), EMPTY, *_load(replica, frame, width, look)]
    if replica.times is not None:
        lines += [EMPTY, *_times(replica.times, width, look)]
    return [clip(one, width, look.glyphs.ellipsis) for one in lines]


def _label(text: str) -> Span:
    return Span(f" {text:<{_LABEL}}", "dim")


def _identity(replica: ReplicaView, frame: Frame, look: Look) -> list[Line]:
    glyphs = look.glyphs
    since_s = max(0, frame.snapshot.now_ns - replica.changed_ns) / 1e9
    state = state_cell(frame, replica.state, replica.progress, replica.changed_ns, look)
    detail = f"  {replica.detail}" if replica.detail else ""
    offers: list[Span] = []
    for name, most in sorted(replica.offers.items()):
        offers += [Span("  ")] if offers else []
        offers.append(look.capability(name))
        if most is not None:
            offers.append(Span(f" up to {most} tokens", "dim"))
    worker = replica.worker or glyphs.unknown
    pid = f" pid {replica.worker_pid}" if replica.worker_pid else ""
    busy = f"{replica.concurrency} slots, {replica.entry_queue} may wait where they enter"
    done = [
        (f"{replica.started}", "bold"), (" started  ", "dim"),
        (f"{replica.completed}", "ok"), (" completed  ", "dim"),
        (f"{replica.failed}", "bad" if replica.failed else "dim"), (" failed  ", "dim"),
        (f"{replica.delegated_in}", "hop"), (" in by delegation  ", "dim"),
        (f"{replica.delegated_out}", "hop"), (" out", "dim"),
        (f"  {replica.lost}" if replica.lost else "", "bad"),
        (" lost" if replica.lost else "", "dim"),
    ]  # fmt: skip
    return [
        (
            _label("state"),
            *state,
            Span(f"  for {since_s:.0f} s", "dim"),
            Span(glyphs.text(detail), "warn"),
        ),
        (_label("offers"), *offers),
        (_label("limits"), Span(busy)),
        (
            _label("worker"),
            Span(f"{worker}{pid}"),
            Span(f"  {glyphs.text(replica.worker_detail)}", "dim"),
        ),
        (_label("engine"), Span(replica.engine or glyphs.unknown)),
        (_label("attempts"), *line(*done)),
    ]


def _load(replica: ReplicaView, frame: Frame, width: int, look: Look) -> list[Line]:
    chart = max(_LEAST_CHART, width - _LABEL - _VALUE - 2)
    slots = max(1, replica.concurrency)
    tokens, ttfts = _series(replica, "tokens_per_s"), _series(replica, "ttft_ms")
    most_tokens = max([1.0, *(value for _, value in tokens)])
    most_ttft = max([1.0, *(value for _, value in ttfts)])
    now = frame.snapshot.now_ns
    length_s = _length_s(replica, now)

    def row(
        name: str,
        values: Sequence[tuple[int, float]],
        full: float,
        value: str,
        *,
        hold: bool = True,
    ) -> Line:
        cells = resample(values, now - length_s * _NS_PER_S, now, chart, hold=hold)
        return (_label(name), *spark(cells, full, look.glyphs), Span(f"  {value}"))

    running = "" if replica.running is None else f"{replica.running} of {replica.concurrency}"
    waiting = "" if replica.waiting is None else f"{replica.waiting}"
    title = f" {_LENGTHS_S[length_s]}"
    return [
        line((f"{title:<{chart + _LABEL - 2}}now", "faint")),
        row("running", _series(replica, "running"), slots, running),
        row("waiting", _series(replica, "waiting"), max(1, replica.entry_queue), waiting),
        row("kv cache", _series(replica, "kv_usage"), 1.0, percent(replica.kv_usage)),
        row(
            "tok/s",
            tokens,
            most_tokens * _ABOVE,
            f"{rate(replica.tokens_per_s)} (most {rate(most_tokens)})",
        ),
        row(
            "ttft p95",
            ttfts,
            most_ttft * _ABOVE,
            f"{ms(replica.ttft_p95_ms)} (most {ms(most_ttft)})" if ttfts else look.glyphs.unknown,
            hold=False,
        ),
    ]


def _length_s(replica: ReplicaView, now_ns: int) -> int:
    begun = replica.trend[0].at_ns if replica.trend else now_ns
    lengths = [one for one in _LENGTHS_S if now_ns - begun <= one * _NS_PER_S]
    return lengths[0] if lengths else max(_LENGTHS_S)


def _series(replica: ReplicaView, name: str) -> list[tuple[int, float]]:
    """The trend up to where the history begins, which has every report of the last minute."""
    history = replica.history if name in LoadPoint.__dataclass_fields__ else ()
    until_ns = history[0].at_ns if history else None
    points: list[TrendPoint | LoadPoint] = [
        point for point in replica.trend if until_ns is None or point.at_ns < until_ns
    ]
    points += history
    return [(point.at_ns, value) for point in points if (value := getattr(point, name)) is not None]


def _times(times: EngineTimes, width: int, look: Look) -> list[Line]:
    parts = [
        (times.queue_ms, "wait", "queue"),
        (times.engine_wait_ms, "wait", "engine wait"),
        (times.prefill_ms, "prefill", "prefill"),
        (times.decode_ms, "decode", "decode"),
    ]
    chart = max(_LEAST_CHART, width - _LABEL - 2)
    legend: list[Span] = [Span(" ")]
    for value, role, name in parts:
        legend += [Span(f"{name} ", "dim"), Span(f"{ms(value)}  ", role)]
    total = sum(value for value, _, _ in parts)
    return [
        line(
            (f" mean of the last {times.attempts} attempts: {ms(total)} at this replica", "faint")
        ),
        (
            _label("time"),
            *split_bar([(value, role) for value, role, _ in parts], chart, look.glyphs),
        ),
        tuple(legend),
    ]
