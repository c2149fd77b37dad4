"""The entry point: the one place where exceptions become messages and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from typer.exceptions import TyperException

from anyserve.cli.app import make_command
from anyserve.cli.diagnostics import Diagnostics, ExitCode, error_object, quiet_streams
from anyserve.cli.output import Output, OutputClosed
from anyserve.cli.session import Session, open_session
from anyserve.cli.terminal import Terminal
from anyserve.collecting import no_collecting
from anyserve.errors import AnyServeError, UsageError

PROGRAM: Final = "anyserve"


def run() -> None:
    """What the `anyserve` command calls."""
    sys.exit(main(sys.argv[1:]))


def main(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> int:
    """Run one command and return its exit code; never raises."""
    as_json = _wants_json(argv)
    diagnostics = Diagnostics(Terminal())
    try:
        everywhere, rest = take_global_options(argv)
        session = open_session(
            everywhere.color, ascii_only=everywhere.ascii, environ=environ, cwd=cwd
        )
        diagnostics = session.diagnostics
        return _run_command(session, rest)
    except OutputClosed:
        quiet_streams()
        return ExitCode.OK
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BaseException as error:  # noqa: BLE001 - the boundary of the process
        return _report(error, diagnostics, as_json=as_json)


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """Options that may stand anywhere on the command line."""

    color: str | None = None
    ascii: bool = False


def take_global_options(argv: Sequence[str]) -> tuple[GlobalOptions, list[str]]:
    """Take `--color` and `--ascii` out, wherever they stand before a `--`.

    Raises:
        UsageError: `--color` without a value.
    """
    color: str | None = None
    ascii_only = False
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word == "--ascii":
            ascii_only = True
        elif word == "--color":
            color = next(words, None)
            if color is None:
                hint = "one of: auto, always, never"
                raise UsageError("--color needs a value", code="usage", hint=hint)
        elif word.startswith("--color="):
            color = word.removeprefix("--color=")
        else:
            rest.append(word)
    return GlobalOptions(color, ascii_only), rest


def _run_command(session: Session, argv: list[str]) -> int:
    with no_collecting():
        command = make_command(argv[0] if argv else "")
    result = command.main(argv, PROGRAM, standalone_mode=False, obj=session)
    return result if isinstance(result, int) else ExitCode.OK


def _wants_json(argv: Sequence[str]) -> bool:
    before = argv[: argv.index("--")] if "--" in argv else argv
    return "--json" in before


def _report(error: BaseException, diagnostics: Diagnostics, *, as_json: bool) -> int:
    foreseen = _foreseen(error)
    if foreseen is None:
        if isinstance(error, SystemExit):
            return error.code if isinstance(error.code, int) else ExitCode.INTERNAL
        from anyserve.cli.crash import report_crash  # noqa: PLC0415 - hopefully never

        foreseen = report_crash(error)
    if as_json:
        try:
            Output(diagnostics.terminal).json(error_object(foreseen))
        except OutputClosed:
            quiet_streams()
    else:
        _print_error(foreseen, diagnostics)
    return foreseen.exit_code


def _foreseen(error: BaseException) -> AnyServeError | None:
    if isinstance(error, AnyServeError):
        return error
    if isinstance(error, TyperException):
        return _usage_error(error)
    if isinstance(error, BaseExceptionGroup):
        found = (_foreseen(inner) for inner in error.exceptions)
        return next((inner for inner in found if inner is not None), None)
    return None


def _usage_error(error: TyperException) -> UsageError:
    context = getattr(error, "ctx", None)
    path = PROGRAM if context is None else context.command_path
    return UsageError(error.format_message().rstrip(), code="usage", hint=f"{path} --help")


def _print_error(error: AnyServeError, diagnostics: Diagnostics) -> None:
    problems = getattr(error, "problems", None)
    if problems:
        from anyserve.cli.scenarios import print_problems  # noqa: PLC0415 - loads the workload

        print_problems(problems, diagnostics)
    else:
        diagnostics.error(error.code, error.message, error.hint)
