"""The figures of a finished run, for people and for programs."""

from __future__ import annotations

from anyserve.cli.finish import Finished
from anyserve.cli.session import Session
from anyserve.telemetry.expect import ExpectationResult
from anyserve.telemetry.summary import to_dict


def summary_object(finished: Finished) -> dict[str, object]:
    """`summary.json` with the verdicts on the expectations."""
    return {
        **to_dict(finished.summary),
        "as_expected": finished.as_expected,
        "expectations": [_verdict(result) for result in finished.results],
    }


def print_finished(session: Session, finished: Finished) -> None:
    """The closing report, on standard output."""
    from anyserve.telemetry.report import print_report  # noqa: PLC0415 - loads rich

    session.output.draw(
        lambda console: print_report(
            finished.summary, finished.results, console, slowest=finished.notable
        )
    )


def _verdict(result: ExpectationResult) -> dict[str, object]:
    return {
        "text": result.text,
        "verdict": result.verdict.value,
        "passed": result.passed,
        "actual": result.actual,
        "limit": result.limit,
        "note": result.note or None,
        "line": result.expectation.line,
    }
