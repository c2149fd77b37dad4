"""`anyserve trace`: one request's way through a recorded run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import msgspec

from anyserve.cli.run_events import load_events
from anyserve.cli.session import Session
from anyserve.telemetry.runs import RunDirectory, open_run
from anyserve.telemetry.text import clean
from anyserve.telemetry.trace import build_trace, find_request, render_trace, to_json

_NO_TTY_WIDTH: Final = 120


class _Text(msgspec.Struct, frozen=True):
    id: str
    text: str = ""


def show_trace(session: Session, request: str, run_name: str, runs: Path, *, as_json: bool) -> None:
    """Print the trace of a request, and its text where that was recorded.

    Raises:
        AnyServeError: there is no such run or request.
    """
    run = open_run(runs, run_name)
    envelopes, _problems = load_events(run)
    request_id = find_request(envelopes, request)
    trace = build_trace(envelopes, request_id)
    text = recorded_text(run, request_id)
    if as_json:
        found = {"run": run.id, **to_json(trace)}
        session.output.json(found if text is None else {**found, "text": text})
        return
    width = shutil.get_terminal_size((_NO_TTY_WIDTH, 24)).columns
    session.output.text(render_trace(trace, width, ascii=session.terminal.ascii))
    if text is not None:
        session.output.line(f"\nanswer\n  {clean(text)}")


def recorded_text(run: RunDirectory, request_id: str) -> str | None:
    """The answer of a request, where the run recorded text."""
    decoder = msgspec.json.Decoder(_Text)
    try:
        with (run.path / "texts.jsonl").open("rb") as lines:
            for line in lines:
                said = decoder.decode(line)
                if said.id == request_id:
                    return said.text
    except (OSError, msgspec.MsgspecError):
        return None
    return None
