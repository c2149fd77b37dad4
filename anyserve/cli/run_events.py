"""What a run has recorded, out of the logs that it left."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from anyserve.core.events import Envelope
from anyserve.errors import UsageError
from anyserve.telemetry.log import ReadReport, merge, read_events
from anyserve.telemetry.runs import RunDirectory

_ORIGINS: Final = "origin-*.jsonl"


def load_events(run: RunDirectory) -> tuple[list[Envelope], tuple[str, ...]]:
    """All events of a run, each once and in order of time, and why the log may not be whole.

    Raises:
        UsageError: the run recorded nothing.
    """
    sources = [path for path in (run.events, *origin_logs(run)) if path.exists()]
    if not sources:
        raise UsageError(
            f"the run {run.id} has recorded no events",
            code="no_events",
            hint=f"its processes' logs are in {run.logs}",
        )
    reports = [ReadReport() for _ in sources]
    envelopes = merge(
        read_events(path, report) for path, report in zip(sources, reports, strict=True)
    )
    return envelopes, _problems(reports)


def origin_logs(run: RunDirectory) -> list[Path]:
    """Logs that origins keep themselves, until the run's end makes one of all."""
    return sorted(run.path.glob(_ORIGINS))


def _problems(reports: Iterable[ReadReport]) -> tuple[str, ...]:
    # Gaps are counted over all logs together, by the summary: what one lacks the other may have.
    torn = any(report.torn for report in reports)
    malformed = sum(report.malformed for report in reports)
    found = ["the end of a log is torn"] if torn else []
    return (*found, *([f"{malformed} malformed lines"] if malformed else []))
