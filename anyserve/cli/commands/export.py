"""`anyserve export` and `anyserve report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson, RunName, RunsDir
from anyserve.cli.session import session_of

_EXPORT = """
Write a run in the format of another tool.

\b
  csv, jsonl   one row a request: outcome, replica, hops, TTFT, TPOT, where its time went
  perfetto     for ui.perfetto.dev: replicas, slots, queues, and each request's way as arrows
  otlp         spans of every request to an OpenTelemetry collector (extra: otel)

\b
  anyserve export latest --format csv -o requests.csv
  anyserve export latest --format perfetto -o trace.json
  anyserve export latest --format otlp --endpoint http://localhost:4318
"""
_REPORT = """
Write the report of a run as one HTML page.

It needs nothing else: no network, no script from elsewhere. Runs write it themselves when they
end, as report.html in their directory.

\b
  anyserve report
  anyserve report 20261123-194501-mixed-7 -o mixed.html
"""
FORMATS = ("csv", "jsonl", "perfetto", "otlp")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("report", help=_REPORT, short_help="Write a run's report as one HTML page.")(report)
    app.command("export", help=_EXPORT, short_help="Write a run in another tool's format.")(export)


def _formats(incomplete: str) -> list[str]:
    return [name for name in FORMATS if name.startswith(incomplete)]


def export(
    context: typer.Context,
    run: RunName = "latest",
    *,
    form: Annotated[
        str,
        typer.Option(
            "--format", "-f", metavar="FORMAT", help=", ".join(FORMATS) + ".",
            autocompletion=_formats,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Default: standard output."),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The collector, for otlp. Default: OTEL_EXPORTER_OTLP_ENDPOINT, else localhost.",
        ),
    ] = None,
    runs: RunsDir = None,
) -> None:  # fmt: skip
    """Export a run."""
    from anyserve.cli.exporting import ExportOptions, export_run  # noqa: PLC0415 - when asked for

    session = session_of(context)
    options = ExportOptions(run=run, form=form, output=output, endpoint=endpoint)
    export_run(session, session.runs(runs), options)


def report(
    context: typer.Context,
    run: RunName = "latest",
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE",
            help="Default: report.html in the run's directory; - is standard output.",
        ),
    ] = None,
    runs: RunsDir = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Write the report of a run."""
    from anyserve.cli.exporting import report_run  # noqa: PLC0415 - loaded when asked for

    session = session_of(context)
    report_run(session, session.runs(runs), run, output, as_json=as_json)
