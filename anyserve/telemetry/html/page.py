"""From a run's events and summary to the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from anyserve.core.events import Envelope
from anyserve.telemetry.expect import ExpectationResult, Verdict
from anyserve.telemetry.html.series import (
    RunSeries,
    counted,
    mean_segments,
    read_series,
    sampled_traces,
)
from anyserve.telemetry.html.svg import (
    Line,
    Marker,
    cdf_chart,
    distribution_line,
    strip,
    time_chart,
    waterfall,
)
from anyserve.telemetry.request_groups import groups_of
from anyserve.telemetry.request_table import RequestTable
from anyserve.telemetry.stats import NS_PER_MS, Distribution
from anyserve.telemetry.summary import OUTCOMES, Slo, Summary
from anyserve.telemetry.text import format_ns
from anyserve.telemetry.trace import Trace, notable_requests
from anyserve.telemetry.trace_model import SegmentKind
from anyserve.version import __version__

UNKNOWN: Final = "–"  # noqa: RUF001 - the dash that means unknown everywhere in AnyServe
STRIP_BINS: Final = 150
SLOWEST: Final = 12
_MARKS: Final = {
    Verdict.OK: ("✔", "ok"),
    Verdict.FAILED: ("✘", "bad"),
    Verdict.UNKNOWN: ("?", "bad"),
    Verdict.INCOMPLETE: ("…", "warn"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """What neither the events nor the summary say."""

    run: str
    command: str = ""
    sample: float = 1.0
    """The share of requests whose events are in the log."""


@dataclass(frozen=True, slots=True)
class Legend:
    """A name with its colour."""

    name: str
    css: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its title and legend. `note` says how to read it."""

    title: str
    drawing: Markup
    legend: Sequence[Legend] = ()
    note: str = ""


def render_report(
    envelopes: Sequence[Envelope],
    summary: Summary,
    results: Sequence[ExpectationResult],
    facts: ReportFacts,
    requests: RequestTable | None = None,
) -> str:
    """The page of a run. Everything foreign on it is escaped.

    `requests`: all of them, where `envelopes` are those of a sample.
    """
    series = read_series(envelopes, requests)
    if requests is None:
        requests = counted(envelopes)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)  # fmt: skip
    environment.filters.update(ms=write_ms, share=write_share, number=write_number)
    template = environment.from_string(_resource("report.html.j2"))
    return template.render(
        facts=facts,
        summary=summary,
        version=__version__,
        style=Markup(_resource("report.css")),  # noqa: S704 - our own file
        tiles=list(_tiles(summary)),
        verdicts=[_verdict(one) for one in results],
        passed=sum(one.passed for one in results),
        timeline=_timeline(series),
        distributions=list(_distributions(requests, summary.slo)),
        segments=_segments(mean_segments(sampled_traces(envelopes))),
        replicas=[
            (name, section, _strip(series, name)) for name, section in summary.replicas.items()
        ],
        edges=_bars(summary.delegations.by_edge),
        reasons=_bars(summary.delegations.by_reason),
        failures=_bars(summary.requests.by_reason),
        latencies=list(_latencies(summary)),
        slowest=_slowest(notable_requests(envelopes, count=SLOWEST)),
        outcomes=OUTCOMES,
        unknown=UNKNOWN,
    )


def write_ms(value: float | None) -> str:
    """A time in ms, for people."""
    return UNKNOWN if value is None else format_ns(round(value * NS_PER_MS))


def write_share(value: float | None) -> str:
    """A share of 1."""
    return UNKNOWN if value is None else f"{value:.1%}"


def write_number(value: float | None) -> str:
    """A count, or a figure with three digits."""
    if value is None:
        return UNKNOWN
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _resource(name: str) -> str:
    return (files("anyserve.telemetry.html") / name).read_text(encoding="utf-8")


def _tiles(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """What it is, the figure, a remark."""
    requests = summary.requests
    left = [
        f"{count} {name}"
        for name in ("failed", "rejected", "cancelled", "expired", "unresolved")
        if (count := getattr(requests, name))
    ]
    completed = f"{requests.completed:,} / {requests.offered:,}"
    yield "completed", completed, ", ".join(left) or "all of them"
    yield (
        "delegated", f"{summary.delegations.requests:,}",
        f"at most {summary.delegations.max_per_request} a request",
    )  # fmt: skip
    others = (summary.recoveries.total, summary.returns.total, summary.refusals.total)
    if any(others):
        text = f"{others[1]} returned, {others[2]} refused"
        yield "recovered", f"{others[0]:,}", text
    yield (
        "TTFT p50",
        write_ms(summary.ttft.p50_ms),
        f"p99 {write_ms(summary.ttft.p99_ms)}",
    )
    yield (
        "TPOT p50", write_ms(summary.tpot.p50_ms),
        f"p99 {write_ms(summary.tpot.p99_ms)}",
    )  # fmt: skip
    yield "end to end p50", write_ms(summary.e2e.p50_ms), f"p99 {write_ms(summary.e2e.p99_ms)}"
    yield (
        "output tokens/s", write_number(summary.throughput.output_tokens_per_s),
        f"{summary.tokens.output:,} in all",
    )  # fmt: skip
    if summary.goodput.share is not None:
        per_s = write_number(summary.goodput.per_s)
        yield "goodput", write_share(summary.goodput.share), f"{per_s}/s within the SLO"


def _verdict(result: ExpectationResult) -> Mapping[str, str]:
    mark, css = _MARKS[result.verdict]
    actual = result.actual
    shown = f"{actual:.4g}" if isinstance(actual, float) else str(actual)
    return {
        "mark": mark,
        "css": css,
        "text": result.text,
        "actual": UNKNOWN if actual is None else shown,
        "note": result.note,
    }


def _timeline(series: RunSeries) -> list[Figure]:
    per = "1 s" if series.bin_s == 1 else f"{series.bin_s:g} s"
    figures = [
        _figure(
            "Requests per second", series, "requests/s",
            [Line("offered", series.offered, 0, step=True),
             Line("completed", series.completed, 2, step=True, filled=True)],
            f"means over {per}; offered counts at the time the plan wanted it sent",
        ),
        _figure(
            "Queued and served", series, "requests",
            [Line("running", series.total_running(), 2, step=True, filled=True),
             Line("waiting at the scheduler", series.queued, 3, step=True),
             Line("waiting at replicas", series.total_waiting(), 1, step=True)],
            "as replicas and scheduler report it, about once a second",
        ),
        _figure(
            "Output tokens per second", series, "tokens/s",
            [Line("tokens", series.tokens, 4, step=True, filled=True)],
            "counted when their request ends",
        ),
    ]  # fmt: skip
    return [figure for figure in figures if figure.legend]


def _figure(title: str, series: RunSeries, unit: str, lines: Sequence[Line], note: str) -> Figure:
    shown = [line for line in lines if any(value for _, value in line.points)]
    drawing = time_chart(shown, series.markers, series.end_s, unit)
    return Figure(title, drawing, [Legend(line.name, f"c{line.colour}") for line in shown], note)


def _distributions(requests: RequestTable, slo: Mapping[str, Slo]) -> Iterator[Figure]:
    shown = {name: group for name, group in groups_of(requests).items() if group.completed}
    limits = slo.get("*", Slo())
    for title, kind, limit in (
        ("Time to first token", "ttft", limits.ttft_ms),
        ("Time per output token", "tpot", limits.tpot_ms),
        ("End to end", "e2e", limits.e2e_ms),
    ):
        lines = []
        for colour, (name, group) in enumerate(shown.items()):
            values = (group.times(kind) / NS_PER_MS).tolist()
            if values:
                lines.append(distribution_line(f"{name} ({len(values)})", values, colour))
        if lines:
            markers = [] if limit is None else [Marker(limit, "SLO", "slo")]
            legend = [Legend(line.name, f"c{line.colour}") for line in lines]
            yield Figure(title, cdf_chart(lines, markers), legend)


def _segments(means: Mapping[str, Mapping[str, float]]) -> Mapping[str, Any]:
    """Bars of mean times, on one scale, and the kinds that occur."""
    longest = max((sum(kinds.values()) for kinds in means.values()), default=1.0) or 1.0
    shown = {
        kind
        for kinds in means.values()
        for kind, value in kinds.items()
        if value / longest > 0.002  # noqa: PLR2004 - what can be seen
    }
    return {
        "rows": [
            (
                name,
                write_ms(sum(kinds.values())),
                [
                    (_css(kind), 100 * value / longest, f"{kind}: {write_ms(value)}")
                    for kind, value in kinds.items()
                    if kind in shown
                ],
            )
            for name, kinds in means.items()
        ],
        "legend": [Legend(kind.value, _css(kind.value)) for kind in SegmentKind
                   if kind.value in shown],
    }  # fmt: skip


def _css(kind: str) -> str:
    return f"s-{kind.replace(' ', '-')}"


def _strip(series: RunSeries, replica: str) -> Markup | None:
    if replica not in series.replicas:
        return None
    return strip(series.busy(replica, STRIP_BINS), 2)


def _bars(counts: Mapping[str, int]) -> list[tuple[str, int, float]]:
    """(name, count, percent of the longest), longest first."""
    longest = max(counts.values(), default=1)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        (name.replace("->", " → "), count, 100 * count / max(1, longest)) for name, count in ordered
    ]


def _latencies(summary: Summary) -> Iterator[tuple[str, str, Distribution]]:
    yield from _rows("all", summary)
    for name, section in summary.capabilities.items():
        yield from _rows(name, section)


def _rows(group: str, section: Any) -> Iterator[tuple[str, str, Distribution]]:
    for title, times in (
        ("first token", section.ttft),
        ("per output token", section.tpot),
        ("between tokens", section.itl),
        ("end to end", section.e2e),
        ("waiting in queues", section.queue),
    ):
        if times.count:
            yield group, title, times


def _slowest(traces: Sequence[Trace]) -> Mapping[str, Any]:
    longest = max((trace.total_ns for trace in traces), default=1)
    kinds = {segment.name for trace in traces for segment in trace.segments if segment.duration_ns}
    return {
        "rows": [
            (trace, format_ns(trace.total_ns), _first(trace), waterfall(trace, longest))
            for trace in traces
        ],
        "legend": [Legend(kind.value, _css(kind.value)) for kind in SegmentKind
                   if kind.value in kinds],
    }  # fmt: skip


def _first(trace: Trace) -> str:
    return UNKNOWN if trace.first_token_ns is None else format_ns(trace.first_token_ns)
