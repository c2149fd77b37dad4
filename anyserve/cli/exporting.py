"""`anyserve export` and `anyserve report`: a recorded run for other tools, and for people."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from anyserve.cli.finish import judge, report_page
from anyserve.cli.run_events import load_events
from anyserve.cli.session import Session
from anyserve.core.events import Envelope
from anyserve.errors import UsageError
from anyserve.telemetry.export.perfetto import write_perfetto
from anyserve.telemetry.export.requests import TracedRequest, WallClock, traced_requests
from anyserve.telemetry.export.rows import rows, write_csv, write_jsonl
from anyserve.telemetry.runs import RunDirectory, open_run

SCHEMA: Final = "anyserve.report/1"
_PIECE_CHARS: Final = 1 << 16
_SAY_S: Final = 2.0


class _Head(msgspec.Struct):
    kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to write, and where to."""

    run: str
    form: str
    output: Path | None
    endpoint: str | None


def export_run(session: Session, root: Path, options: ExportOptions) -> None:
    """Write a run in another format.

    Raises:
        AnyServeError: there is no such run or format, or the collector refuses.
    """
    write = _WRITERS.get(options.form)
    if write is None and options.form != "otlp":
        raise UsageError(
            f"there is no format '{options.form}'",
            code="unknown_format",
            hint=f"one of: {', '.join([*_WRITERS, 'otlp'])}",
        )
    if options.endpoint is not None and options.form != "otlp":
        raise UsageError("--endpoint is for --format otlp", code="usage")
    if options.output is not None and options.form == "otlp":
        raise UsageError(
            "otlp goes to a collector, not to a file", code="usage", hint="--endpoint URL"
        )
    run = open_run(root, options.run)
    envelopes, problems = load_events(run)
    for problem in problems:
        session.diagnostics.say(f"{run.id} is incomplete: {problem}")
    if write is None:
        _send(session, run, envelopes, options.endpoint)
        return
    with _opened(session, options.output) as file:
        count = write(envelopes, _shown(session, envelopes), file)
    target = "" if options.output is None else f" to {options.output}"
    session.diagnostics.say(f"wrote {count} requests of {run.id}{target}")


def _send(
    session: Session, run: RunDirectory, envelopes: Sequence[Envelope], endpoint: str | None
) -> None:
    from anyserve.telemetry.export.otlp import OtlpSender  # noqa: PLC0415 - an extra
    from anyserve.telemetry.export.spans import plan_spans  # noqa: PLC0415

    clock = WallClock(envelopes)
    requests = _shown(session, envelopes)
    spans = (span for one in requests for span in plan_spans(one, clock, run.id))
    sender = OtlpSender(endpoint, {"anyserve.run.id": run.id})
    try:
        count = sender.send(spans)
    finally:
        sender.close()
    session.diagnostics.say(f"sent {count} spans of {run.id}")


def _shown(session: Session, envelopes: Sequence[Envelope]) -> Iterator[TracedRequest]:
    """The requests; now and then a line says how far it is."""
    said_s = time.monotonic()
    for count, request in enumerate(traced_requests(envelopes)):
        yield request
        if time.monotonic() > said_s + _SAY_S:
            said_s = time.monotonic()
            session.diagnostics.say(f"{count + 1:,} requests so far")


def _csv(envelopes: Sequence[Envelope], requests: Iterable[TracedRequest], file: TextIO) -> int:
    return write_csv(rows(requests, WallClock(envelopes)), file)


def _jsonl(envelopes: Sequence[Envelope], requests: Iterable[TracedRequest], file: TextIO) -> int:
    return write_jsonl(rows(requests, WallClock(envelopes)), file)


_Writer = Callable[[Sequence[Envelope], Iterable[TracedRequest], TextIO], int]
_WRITERS: Final[dict[str, _Writer]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "perfetto": write_perfetto,
}


class _Stdout:
    """Standard output as a file, in larger pieces; quiet when its reader leaves."""

    def __init__(self, session: Session) -> None:
        self._write = session.output.text
        self._waiting: list[str] = []
        self._size = 0

    def write(self, text: str) -> int:
        """Take text; it is shown at the latest by `flush`."""
        self._waiting.append(text)
        self._size += len(text)
        if self._size > _PIECE_CHARS:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Show what waits."""
        text = "".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        self._write(text)


@contextmanager
def _opened(session: Session, output: Path | None) -> Iterator[Any]:
    """The file to write to: whole or not at all; standard output where none is named."""
    if output is None or str(output) == "-":
        stdout = _Stdout(session)
        yield stdout
        stdout.flush()
        return
    path = session.cwd / output
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", code="cannot_write") from None
    finally:
        part.unlink(missing_ok=True)


def report_run(
    session: Session, root: Path, name: str, output: Path | None, *, as_json: bool
) -> None:
    """Write the HTML report of a run, made from its events again.

    Raises:
        UsageError: there is no such run, or it recorded nothing.
    """
    run = open_run(root, name)
    envelopes, problems = load_events(run)
    finished = judge(run, envelopes, problems, kind=_kind(run))
    page = report_page(finished, envelopes)
    target = run.report if output is None else output
    with _opened(session, target) as file:
        file.write(page)
    if str(target) == "-":
        return
    if as_json:
        session.output.json({"schema": SCHEMA, "run": run.id, "path": str(session.cwd / target)})
    else:
        session.output.line(str(session.cwd / target))


def _kind(run: RunDirectory) -> str:
    """What its summary says: live or sim."""
    try:
        head = msgspec.json.decode(run.summary.read_bytes(), type=_Head)
    except (OSError, msgspec.MsgspecError):
        return "live"
    return head.kind or "live"
