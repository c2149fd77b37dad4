"""Try an app before anything depends on it: `python -m anyserve.runtime.handlers.trial NAME DIR`.

In a process of its own, because importing it is the user's code: it may be heavy, may fail, may
exit, and when it is tried again it must be read anew.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from anyserve.app.app import App
from anyserve.errors import AnyServeError
from anyserve.runtime.handlers.load import handlers_for, load_app
from anyserve.workload.plugins import PluginError

TRIAL_S: Final = 60.0
"""Imports of large libraries take seconds, never this long."""


class Served(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One capability of an app. `kind`: async, async stream, plain, plain stream."""

    capability: str
    attributes: dict[str, str] = {}
    handler: str = ""
    kind: str = ""


class AppFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an app is. `files`: its own modules, without installed packages."""

    origin: str
    serves: list[Served] = []
    files: list[str] = []


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why it cannot be used."""

    code: str
    message: str
    hint: str = ""


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the two."""

    facts: AppFacts | None = None
    refusal: Refusal | None = None


async def try_app(name: str, directory: str, serves: Iterable[str]) -> AppFacts:
    """Import an app in a process of its own; what it is. `serves` must have handlers.

    Raises:
        PluginError: it cannot be used, and why.
    """
    command = [
        sys.executable,
        "-B",
        "-m",
        "anyserve.runtime.handlers.trial",
        name,
        directory,
        *serves,
    ]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(TRIAL_S):
            said, _ = await process.communicate()
    except TimeoutError:
        message = f"importing '{name}' takes more than {TRIAL_S:g} s"
        raise PluginError(message, code="plugin_failed", hint="load models in on_start") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return _read(name, said, process.returncode)


def _read(name: str, said: bytes, code: int | None) -> AppFacts:
    try:
        verdict = msgspec.json.decode(said, type=Verdict)
    except msgspec.MsgspecError:
        message = f"importing '{name}' ended the process ({code})"
        raise PluginError(message, code="plugin_failed") from None
    if verdict.facts is None:
        refusal = verdict.refusal or Refusal(code="plugin_failed", message="no reason given")
        raise PluginError(refusal.message, code=refusal.code, hint=refusal.hint)
    return verdict.facts


def examine(name: str, directory: str, serves: Iterable[str]) -> Verdict:
    """Import it here."""
    before = set(sys.modules)
    try:
        app, origin = load_app(name, directory)
        handlers_for(app, name, serves)
    except AnyServeError as error:
        return Verdict(refusal=Refusal(code=error.code, message=error.message, hint=error.hint))
    return Verdict(AppFacts(origin=origin, serves=_served(app), files=_files(before)))


def _served(app: App) -> list[Served]:
    return [
        Served(
            capability=handler.capability,
            attributes=handler.attributes,
            handler=handler.name,
            kind=handler.shape.kind.value,
        )
        for handler in app.handlers.values()
    ]


def _files(before: set[str]) -> list[str]:
    """The source files that the import has read, without the interpreter's and installed ones."""
    foreign = [Path(place) for place in set(sysconfig.get_paths().values())]
    foreign.append(Path(__file__).parents[2])  # ourselves
    files = []
    for module_name in set(sys.modules) - before:
        file = getattr(sys.modules[module_name], "__file__", None)
        if file is not None and not any(Path(file).is_relative_to(one) for one in foreign):
            files.append(file)
    return sorted(files)


def main() -> None:
    """Say the verdict on standard output; what the app prints goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    name, directory, *serves = sys.argv[1:]
    verdict = examine(name, directory, serves)
    os.write(answer, msgspec.json.encode(verdict))
    os._exit(0)  # whatever threads the app may have started


if __name__ == "__main__":
    main()
