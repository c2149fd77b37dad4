"""The end of a run: one log out of its parts, its summary, and whether it was as expected.

Knows nothing of the command line and of where the events came from: a live run and a simulated
one end here alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from anyserve.cli.run_events import load_events, origin_logs
from anyserve.core.events import Envelope
from anyserve.core.spec import ClusterSpec, Expectation
from anyserve.telemetry.expect import ExpectationResult, evaluate
from anyserve.telemetry.log import EventLogWriter
from anyserve.telemetry.request_table import RequestTable
from anyserve.telemetry.runs import RunDirectory
from anyserve.telemetry.summary import (
    RunFacts,
    Slo,
    Summary,
    summarise,
    summary_of,
    to_dict,
    write_summary,
)
from anyserve.telemetry.tally import Tally
from anyserve.telemetry.trace import Trace, notable_requests

COMPRESS_FROM_BYTES: Final = 32 * 2**20
"""A larger log is kept compressed."""
REPORT_EVENTS: Final = 2_000_000
"""A larger run writes no `report.html` by itself (it would take minutes): `anyserve report`."""
REPORT_REQUESTS: Final = 250_000
"""Likewise, where the log holds a sample of them."""


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What a run says of itself in `scenario.resolved.json`, as far as its end needs it."""

    kind: str = "live"
    """live or sim."""
    sample: float = 1.0
    """The share of requests whose events are in the log."""
    file: str = ""
    command: str = ""
    seed: int | None = None
    cluster: ClusterSpec | None = None
    expectations: tuple[Expectation, ...] = ()
    slo: Mapping[str, Slo] = {}
    machine: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run came to. `notable`: traces of the requests worth a look."""

    run: RunDirectory
    summary: Summary
    results: tuple[ExpectationResult, ...]
    notable: tuple[Trace, ...]
    resolved: Resolved = field(default_factory=Resolved)

    @property
    def as_expected(self) -> bool:
        """Whether every expectation was met."""
        return all(result.passed for result in self.results)


def read_resolved(run: RunDirectory) -> Resolved:
    """What was run; empty where the file is gone or of another make."""
    try:
        return msgspec.json.decode(run.scenario.read_bytes(), type=Resolved)
    except (OSError, msgspec.MsgspecError):
        return Resolved()


def finish_run(run: RunDirectory, *, kind: str) -> Finished:
    """Merge the run's logs into one, judge it, write `summary.json` and `report.html`.

    `kind`: live or sim. Repeating it changes nothing.

    Raises:
        UsageError: the run recorded nothing.
    """
    envelopes, problems = load_events(run)
    _keep_one_log(run, envelopes)
    finished = judge(run, envelopes, problems, kind=kind)
    write_summary(finished.summary, run.summary)
    if len(envelopes) <= REPORT_EVENTS:
        run.report.write_text(report_page(finished, envelopes), encoding="utf-8")
    return finished


def report_page(
    finished: Finished, envelopes: Sequence[Envelope], requests: RequestTable | None = None
) -> str:
    """The report of a run as one HTML page. `requests`: all, where the events are a sample's."""
    from anyserve.telemetry.html.page import ReportFacts, render_report  # noqa: PLC0415 - jinja2

    resolved = finished.resolved
    facts = ReportFacts(run=finished.run.id, command=resolved.command, sample=resolved.sample)
    return render_report(envelopes, finished.summary, finished.results, facts, requests)


def finish_counted(run: RunDirectory, tally: Tally, *, kind: str) -> Finished:
    """The end of a run whose events were all counted, though its log holds a sample of them."""
    resolved = read_resolved(run)
    facts = RunFacts(run=run.id, seed=resolved.seed, kind=kind, machine=resolved.machine)
    summary = summary_of(tally, resolved.slo, facts)
    results = tuple(evaluate(resolved.expectations, to_dict(summary)))
    write_summary(summary, run.summary)
    envelopes, _ = load_events(run)
    finished = Finished(run, summary, results, tuple(notable_requests(envelopes)), resolved)
    if len(envelopes) <= REPORT_EVENTS and summary.requests.offered <= REPORT_REQUESTS:
        page = report_page(finished, envelopes, tally.requests)
        run.report.write_text(page, encoding="utf-8")
    return finished


def judge(
    run: RunDirectory, envelopes: list[Envelope], problems: tuple[str, ...] = (), *, kind: str
) -> Finished:
    """Summary, expectations and notable requests of these events; writes nothing."""
    resolved = read_resolved(run)
    if resolved.sample < 1.0:
        problems = (*problems, f"its log holds {resolved.sample:.3%} of the requests")
    facts = RunFacts(
        run=run.id,
        seed=resolved.seed,
        kind=kind,
        machine=resolved.machine,
        problems=problems,
    )
    summary = summarise(envelopes, slo=resolved.slo, facts=facts)
    results = tuple(evaluate(resolved.expectations, to_dict(summary)))
    return Finished(run, summary, results, tuple(notable_requests(envelopes)), resolved)


def _keep_one_log(run: RunDirectory, envelopes: list[Envelope]) -> None:
    origins = origin_logs(run)
    before = run.events
    size = sum(path.stat().st_size for path in (before, *origins) if path.exists())
    large = size > COMPRESS_FROM_BYTES
    if not origins and (before.suffix == ".zst" or not large):
        return
    target = run.path / ("events.jsonl.zst" if large else "events.jsonl")
    part = target.with_name(f"part-{target.name}")
    part.unlink(missing_ok=True)
    with EventLogWriter(part) as log:
        log.write_all(envelopes)
    part.replace(target)
    for path in (before, *origins):
        if path != target:
            path.unlink(missing_ok=True)
