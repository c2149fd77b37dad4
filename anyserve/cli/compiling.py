"""Building, checking and removing the compiled decision code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from anyserve.cli.diagnostics import Diagnostics, ExitCode
from anyserve.cli.session import Session
from anyserve.compiled.build import Progress, make_build, mypyc_version
from anyserve.compiled.store import Build, user_store
from anyserve.compiled.use import SWITCH, Standing, look

SCHEMA: Final = "anyserve.compile/1"


def build(session: Session, *, tune: bool, as_json: bool) -> None:
    """`anyserve compile`: make a build, unless there is one that fits.

    Raises:
        MissingDependencyError: mypyc or a C compiler is missing.
        AnyServeError: one of them failed.
    """
    _, found = look({})
    fresh = found is None or found.mypy != mypyc_version() or (tune and not found.tuned)
    if fresh:
        with _progress(session.diagnostics) as progress:
            found = make_build(user_store(), progress, tune=tune)
    assert found is not None
    if as_json:
        session.output.json(_object(Standing.IN_USE, found) | {"built": fresh})
    elif fresh:
        session.output.line(f"compiled {_described(found)}; sim, sweep and plan use it from now on")
    else:
        session.output.line(f"there is nothing to do: {_described(found)} are compiled")
    if look(session.environ)[0] is Standing.SWITCHED_OFF:
        session.diagnostics.warn(f"{SWITCH} in the environment switches it off")


def check(session: Session, *, as_json: bool) -> int:
    """`--check`: 0 where a simulation started now would run compiled."""
    standing, found = look(session.environ)
    if as_json:
        session.output.json(_object(standing, found))
    elif found is not None:
        session.output.line(f"simulations run compiled: {_described(found)}")
    else:
        session.output.line(f"simulations run as Python: {standing.value}")
    return ExitCode.OK if standing is Standing.IN_USE else ExitCode.EXPECTATIONS_FAILED


def remove(session: Session, *, as_json: bool) -> None:
    """`--remove`: no build is left."""
    count = user_store().remove_all()
    if as_json:
        session.output.json({"schema": SCHEMA, "removed": count})
    else:
        session.output.line(f"removed {count} builds" if count != 1 else "removed 1 build")


def _described(found: Build) -> str:
    tuned = ", tuned" if found.tuned else ""
    count = len(found.modules) - 1
    return f"{count} modules, by mypyc {found.mypy} in {found.seconds:.0f} s{tuned}"


def _object(standing: Standing, found: Build | None) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "compiled": standing is Standing.IN_USE,
        "standing": standing.value,
        "folder": None if found is None else str(user_store().folder(found.key)),
        "modules": None if found is None else len(found.modules) - 1,
        "mypy": None if found is None else found.mypy,
        "seconds": None if found is None else found.seconds,
        "tuned": None if found is None else found.tuned,
    }


@contextmanager
def _progress(diagnostics: Diagnostics) -> Iterator[Progress]:
    """A bar on a terminal, a line for each stage elsewhere."""
    if not diagnostics.terminal.lively(diagnostics.stream):
        said: list[str] = []

        def tell(stage: str, _share: float) -> None:
            if stage not in said:
                said.append(stage)
                diagnostics.say(stage)

        yield tell
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415 - only where a bar is drawn

    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    console = diagnostics.terminal.console(diagnostics.stream)
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=1.0)

        def show(stage: str, share: float) -> None:
            bars.update(task, completed=share, description=stage)

        yield show
