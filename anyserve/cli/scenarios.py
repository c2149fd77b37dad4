"""Scenario files on the command line: problems, `validate`, `show`, `list`, `schema`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from anyserve.cli.diagnostics import Diagnostics, ExitCode
from anyserve.cli.session import Session
from anyserve.errors import UsageError
from anyserve.workload.load import Scenario, load_scenario
from anyserve.workload.problems import Problem, ScenarioInvalid, render, to_dicts

SCHEMA: Final = "anyserve.scenarios/1"


def print_problems(problems: Sequence[Problem], diagnostics: Diagnostics) -> None:
    """All problems of a file, as compilers print them."""
    terminal, stream = diagnostics.terminal, diagnostics.stream
    for line in render(problems).split("\n"):
        head, colon, rest = line.partition(": ")
        if head.startswith("error[") or head == "help":
            color = "red" if head != "help" else "cyan"
            diagnostics.say(terminal.paint(head, color, stream) + colon + rest)
        else:
            diagnostics.say(line)


def validate_files(session: Session, files: Iterable[Path], *, as_json: bool) -> int:
    """Check each file; the exit code is that of the worst."""
    found: list[tuple[Path, Scenario | None, Sequence[Problem]]] = []
    for path in files:
        try:
            found.append((path, load_scenario(path), ()))
        except ScenarioInvalid as invalid:
            found.append((path, None, invalid.problems))
    if as_json:
        entries = [_validated(path, scenario, problems) for path, scenario, problems in found]
        session.output.json({"schema": SCHEMA, "scenarios": entries})
    else:
        _print_validated(session, found)
    return ExitCode.USAGE if any(problems for _, _, problems in found) else ExitCode.OK


def _validated(
    path: Path, scenario: Scenario | None, problems: Sequence[Problem]
) -> dict[str, Any]:
    name = None if scenario is None else scenario.name
    return {
        "file": str(path),
        "name": name,
        "valid": not problems,
        "problems": to_dicts(problems),
    }


def _print_validated(
    session: Session, found: Sequence[tuple[Path, Scenario | None, Sequence[Problem]]]
) -> None:
    for path, scenario, problems in found:
        if scenario is None:
            print_problems(problems, session.diagnostics)
            continue
        file = scenario.file
        counts = (
            f"{sum(one.count or 1 for one in file.cluster.replicas.values())} replicas, "
            f"{len(file.traffic.streams)} streams, {len(file.faults)} faults, "
            f"{len(file.expect)} expectations"
        )
        session.output.line(f"{session.terminal.mark(ok=True)} {path}: {counts}")


def show_file(session: Session, path: Path, overrides: Sequence[str], *, as_json: bool) -> None:
    """What the scenario says, defaults and overrides included."""
    scenario = load_scenario(path, overrides)
    if as_json:
        session.output.json(scenario.to_plain())
    else:
        session.output.text(scenario.to_yaml())


def list_files(session: Session, directory: Path, *, as_json: bool) -> None:
    """The scenario files of a directory, valid or not.

    Raises:
        UsageError: there is no such directory.
    """
    if not directory.is_dir():
        hint = "name the directory: anyserve scenario list DIR"
        message = f"there is no directory {directory}"
        raise UsageError(message, code="no_scenarios", hint=hint)
    entries = [_entry(path) for path in sorted(directory.glob("*.y*ml"))]
    if as_json:
        session.output.json({"schema": SCHEMA, "scenarios": entries})
        return
    for entry in entries:
        text = entry["description"] or ""
        if not entry["valid"]:
            text = "not valid: anyserve scenario validate shows why"
        session.output.line(f"{entry['file']:<36} {text.strip().split(chr(10))[0]}".rstrip())


def _entry(path: Path) -> dict[str, Any]:
    try:
        scenario = load_scenario(path)
    except ScenarioInvalid:
        return {"file": str(path), "name": None, "description": None, "valid": False}
    file = scenario.file
    return {
        "file": str(path),
        "name": file.name,
        "description": " ".join(file.description.split()),
        "valid": True,
    }


def print_schema(session: Session) -> None:
    """The JSON Schema of scenario files."""
    from anyserve.workload.schema_file import schema_text  # noqa: PLC0415 - for this command only

    session.output.text(schema_text())
