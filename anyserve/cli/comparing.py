"""`anyserve compare`: two recorded runs, live or simulated, side by side."""

from __future__ import annotations

from pathlib import Path

import msgspec

from anyserve.cli.finish import judge, read_resolved
from anyserve.cli.run_events import load_events
from anyserve.cli.session import Session
from anyserve.core.events import Envelope
from anyserve.telemetry.compare import Comparison, compare
from anyserve.telemetry.runs import open_run
from anyserve.telemetry.summary import to_dict


def compare_runs(session: Session, root: Path, first: str, second: str, *, as_json: bool) -> None:
    """Print the comparison.

    Raises:
        UsageError: there is no such run, or one recorded nothing.
    """
    comparison = comparison_of(root, first, second)
    if as_json:
        session.output.json(msgspec.to_builtins(comparison))
        return
    from anyserve.telemetry.compare_render import print_comparison  # noqa: PLC0415 - loads rich

    session.output.draw(lambda console: print_comparison(comparison, console))


def comparison_of(root: Path, first: str, second: str) -> Comparison:
    """Two runs compared; each is named as `open_run` takes it."""
    runs = (open_run(root, first), open_run(root, second))
    summaries = []
    events: list[list[Envelope]] = []
    for run in runs:
        envelopes, problems = load_events(run)
        kind = read_resolved(run).kind
        summaries.append(to_dict(judge(run, envelopes, problems, kind=kind).summary))
        events.append(envelopes)
    return compare((runs[0].id, runs[1].id), (summaries[0], summaries[1]), (events[0], events[1]))
