"""`--reload`: when the handlers' code changes, a new worker takes the place of the old one.

New code is tried in a process of its own first. Where it cannot be loaded the old worker stays,
with the reason in an event and in the log; the next change is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

from anyserve.core.spec import AppSpec
from anyserve.errors import AnyServeError
from anyserve.runtime.handlers.trial import AppFacts, try_app

_LOG = logging.getLogger(__name__)
POLL_S: Final = 0.4
"""How often the files are looked at: a person who saves a file does not notice it."""

Times = Mapping[str, int]


class Worker(Protocol):
    """Who has the worker."""

    async def change(self, why: str) -> None:
        """Replace it by a new one."""

    def say(self, state: str, detail: str) -> None:
        """Say something of it as an event."""


class Reloading:
    """Watches the files of one app."""

    def __init__(self, app: AppSpec, directory: str, worker: Worker) -> None:
        self._app = app
        self._directory = directory
        self._worker = worker
        module = app.name.partition(":")[0].replace(".", "/")
        self._files = {str(Path(directory) / f"{module}.py")}
        """Even where it cannot be imported yet, its own file is watched."""

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._learn_files()
        times = modified(self._files)
        while True:
            await asyncio.sleep(POLL_S)
            now = modified(self._files)
            if now == times:
                continue
            changed = sorted(name for name in now | times if now.get(name) != times.get(name))
            times = now
            await self._reload(", ".join(Path(name).name for name in changed))
            times = {**modified(self._files - set(times)), **times}

    async def _learn_files(self) -> None:
        try:
            self._files |= set((await self._try()).files)
        except AnyServeError as error:
            self._refuse(error)

    async def _reload(self, changed: str) -> None:
        try:
            facts = await self._try()
        except AnyServeError as error:
            self._refuse(error)
            return
        self._files |= set(facts.files)
        _LOG.info("%s changed: a new worker starts", changed)
        await self._worker.change(f"{changed} changed")

    async def _try(self) -> AppFacts:
        return await try_app(self._app.name, self._directory, self._app.serves)

    def _refuse(self, error: AnyServeError) -> None:
        text = f"{error.message} ({error.hint})" if error.hint else error.message
        _LOG.error("the new code is not taken, the old worker stays: %s", text)
        self._worker.say("reload_failed", text)


def modified(files: Iterable[str]) -> dict[str, int]:
    """When each file was changed; 0 where it is not there."""
    times: dict[str, int] = {}
    for name in files:
        try:
            times[name] = Path(name).stat().st_mtime_ns
        except OSError:
            times[name] = 0
    return times
