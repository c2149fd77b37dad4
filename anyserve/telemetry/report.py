"""The closing report of a run in the terminal: what it came to, and whether that was expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from anyserve.telemetry.expect import ExpectationResult, Verdict
from anyserve.telemetry.stats import Distribution
from anyserve.telemetry.summary import Latencies, ReplicaSection, Summary
from anyserve.telemetry.text import clean
from anyserve.telemetry.trace import Trace

_UNKNOWN = "–"  # noqa: RUF001 - the dash that means unknown everywhere in AnyServe
MOST_REPLICAS = 40
"""Of more, the terminal shows the busiest."""
BUSIEST = 20
_MARKS = {
    Verdict.OK: ("✔", "green"),
    Verdict.FAILED: ("✘", "bold red"),
    Verdict.UNKNOWN: ("?", "bold red"),
    Verdict.INCOMPLETE: ("…", "bold yellow"),
}
_STYLES = {"completed": "green", "failed": "bold red", "unresolved": "bold red"}


def print_report(
    summary: Summary,
    results: Sequence[ExpectationResult],
    console: Console,
    *,
    slowest: Iterable[Trace] = (),
) -> None:
    """Print the report of a run. `slowest`: requests worth a look, with their traces."""
    console.print(_headline(summary))
    console.print(_outcomes(summary))
    if not summary.complete:
        reasons = ", ".join(summary.incomplete_because)
        console.print(Text(f"incomplete: {reasons}", "bold yellow"))
    for table in (
        _latency_table(summary),
        _capability_table(summary),
        _replica_table(summary),
        _delegation_table(summary),
        _reason_table(summary),
        _slowest_table(slowest),
    ):
        if table.row_count:
            console.print()
            console.print(table)
    if results:
        console.print()
    for line in _expectations(results):
        console.print(line)


def _headline(summary: Summary) -> Text:
    parts = [summary.scenario or "run"]
    if summary.seed is not None:
        parts.append(f"seed {summary.seed}")
    if summary.duration_s is not None:
        parts.append(f"{summary.duration_s:.1f} s")
    if summary.kind is not None:
        parts.append(summary.kind)
    if summary.run is not None:
        parts.append(summary.run)
    return Text(clean(" · ".join(parts)), "bold")


def _outcomes(summary: Summary) -> Text:
    requests = summary.requests
    line = Text(f"{requests.offered} offered")
    for name in ("completed", "failed", "rejected", "cancelled", "expired", "unresolved"):
        count = getattr(requests, name)
        if count or name == "completed":
            line.append(" · ")
            line.append(f"{count} {name}", _STYLES.get(name, "yellow"))
    line.append(f" · {summary.delegations.total} delegated")
    for word, total in (
        ("recovered", summary.recoveries.total),
        ("returned", summary.returns.total),
        ("refused", summary.refusals.total),
    ):
        if total:
            line.append(f" · {total} {word}")
    if summary.throughput.output_tokens_per_s is not None:
        line.append(f" · {summary.throughput.output_tokens_per_s:.1f} tokens/s")
    if summary.goodput.share is not None:
        line.append(f" · goodput {summary.goodput.share:.1%}")
    return line


def _table(title: str, first: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _latency_table(summary: Summary) -> Table:
    table = _table(
        "latency of completed requests, ms",
        "",
        ("count", "mean", "p50", "p90", "p95", "p99", "max"),
    )
    rows = (
        ("first token", summary.ttft),
        ("per output token", summary.tpot),
        ("between tokens", summary.itl),
        ("end to end", summary.e2e),
        ("waiting in queues", summary.queue),
    )
    for name, times in rows:
        values = (
            times.mean_ms,
            times.p50_ms,
            times.p90_ms,
            times.p95_ms,
            times.p99_ms,
            times.max_ms,
        )
        table.add_row(name, str(times.count), *(_ms(value) for value in values))
    return table


def _capability_table(summary: Summary) -> Table:
    columns = (
        "offered", "completed", "delegated", "ttft p50", "ttft p99", "e2e p50", "e2e p99",
        "tokens", "goodput",
    )  # fmt: skip
    table = _table("capability asked", "", columns)
    for name, section in summary.capabilities.items():
        table.add_row(
            clean(name),
            str(section.requests.offered),
            str(section.requests.completed),
            str(section.delegated),
            *_latency_cells(section),
            str(section.tokens.output),
            _share(section.goodput.share),
        )
    return table


def _latency_cells(section: Latencies) -> tuple[str, ...]:
    return (*_spread(section.ttft), *_spread(section.e2e))


def _spread(times: Distribution) -> tuple[str, str]:
    return _ms(times.p50_ms), _ms(times.p99_ms)


def _replica_table(summary: Summary) -> Table:
    columns = (
        "state", "started", "completed", "failed", "delegated", "lost", "busy", "ttft p50",
        "ttft p99", "tokens",
    )  # fmt: skip
    replicas = summary.replicas
    title = "replica"
    if len(replicas) > MOST_REPLICAS:
        title = f"the {BUSIEST} busiest of {len(replicas)} replicas (all: summary.json)"
    table = _table(title, "", columns)
    for name, section in _shown(replicas):
        table.add_row(
            clean(name),
            section.state or _UNKNOWN,
            str(section.started),
            str(section.completed),
            str(section.failed),
            str(section.delegated),
            str(section.lost),
            _share(section.busy_share),
            *_spread(section.ttft),
            str(section.output_tokens),
        )
    return table


def _shown(replicas: Mapping[str, ReplicaSection]) -> Iterable[tuple[str, ReplicaSection]]:
    """All of them, or the busiest where they are too many to be read."""
    if len(replicas) <= MOST_REPLICAS:
        return replicas.items()
    by_work = sorted(
        replicas.items(), key=lambda one: (-(one[1].busy_share or 0.0), -one[1].output_tokens)
    )
    return by_work[:BUSIEST]


def _delegation_table(summary: Summary) -> Table:
    table = _table("delegations", "", ("count",))
    for edge, count in summary.delegations.by_edge.items():
        table.add_row(clean(edge.replace("->", " → ")), str(count))
    for reason, count in summary.delegations.by_reason.items():
        table.add_row(clean(f"because {reason}"), str(count))
    return table


def _reason_table(summary: Summary) -> Table:
    table = _table("not completed", "", ("count",))
    for reason, count in summary.requests.by_reason.items():
        table.add_row(clean(reason), str(count))
    return table


def _slowest_table(traces: Iterable[Trace]) -> Table:
    columns = ("outcome", "first token", "total", "hops", "longest part")
    table = _table("worth a look: anyserve trace REQUEST", "", columns)
    for trace in traces:
        longest = max(trace.segments, key=lambda segment: segment.duration_ns)
        first_ms = None if trace.first_token_ns is None else trace.first_token_ns / 1e6
        table.add_row(
            clean(trace.id),
            trace.outcome or "running",
            _ms(first_ms),
            _ms(trace.total_ns / 1e6),
            str(trace.hops),
            clean(f"{longest.name} {_ms(longest.duration_ns / 1e6)} ({longest.where})"),
        )
    return table


def _expectations(results: Sequence[ExpectationResult]) -> Iterable[Text]:
    for result in results:
        mark, style = _MARKS[result.verdict]
        line = Text()
        line.append(f"{mark} ", style)
        line.append(clean(result.text))
        if result.verdict is not Verdict.UNKNOWN:
            line.append(f"  (was {_value(result.actual)})", "dim")
        if result.note:
            line.append(f"  {clean(result.note)}", style)
        yield line
    if results:
        passed = sum(result.passed for result in results)
        style = "green" if passed == len(results) else "bold red"
        yield Text(f"{passed} of {len(results)} expectations met", style)


def _value(value: object) -> str:
    if value is None:
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else clean(str(value))


def _ms(value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def _share(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.0%}"
