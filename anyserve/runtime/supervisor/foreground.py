"""The foreground's side: start a supervisor, read its progress, ask it to end, or let it go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Self

import msgspec

from anyserve.errors import StartError
from anyserve.runtime.lifeline import Lifeline
from anyserve.runtime.logs import ErrorReport, read_tail
from anyserve.runtime.supervisor.config import SupervisorConfig
from anyserve.runtime.supervisor.control import Release, request
from anyserve.runtime.supervisor.progress import AnyProgress, Exit, Ready, decode_progress

_LINE_LIMIT: Final = 4 * 1024 * 1024
SUPERVISOR_COMMAND: Final = (sys.executable, "-m", "anyserve.runtime.supervisor")


class SupervisorProcess:
    """A running supervisor and our lifeline to it."""

    def __init__(
        self, process: asyncio.subprocess.Process, lifeline: Lifeline, log: Path, config: Path
    ) -> None:
        self._process = process
        self._lifeline = lifeline
        self._log = log
        self._config = config
        self._control: Path | None = None
        self._stopping = False

    @classmethod
    async def launch(
        cls, config: SupervisorConfig, *, command: Sequence[str] = SUPERVISOR_COMMAND
    ) -> Self:
        """Start it in a session of its own: Ctrl-C does not reach it.

        Raises:
            StartError: it cannot be executed, or the run directory cannot be written.
        """
        log = Path(config.run_dir) / "logs" / "supervisor.log"
        lifeline = Lifeline()
        handle, name = tempfile.mkstemp(prefix="anyserve-", suffix=".json")  # 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(config))
            with _open_log(log) as stderr:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    name,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=stderr,
                    pass_fds=lifeline.pass_fds,
                    env={**os.environ, **lifeline.env},
                    start_new_session=True,
                    limit=_LINE_LIMIT,
                )
        except OSError as error:
            lifeline.close()
            _remove(name)
            message = f"the supervisor could not be started: {error}"
            raise StartError(message, code="spawn_failed") from None
        return cls(process, lifeline, log, Path(name))

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self._process.pid

    async def progress(self) -> AsyncIterator[AnyProgress]:
        """All its lines; the last one is always `Exit`, made up if it ended without a word."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = decode_progress(line)
            if isinstance(said, Ready):
                self._control = Path(said.control)
            yield said
            if isinstance(said, Exit):
                await self.wait()
                return
        yield await self._silent_exit()

    def stop(self) -> None:
        """Ask it to drain and end; ask again and it kills everything at once."""
        # Two of a kind, the second sent before the first is handled, would be one.
        wish = signal.SIGQUIT if self._stopping else signal.SIGTERM
        self._stopping = True
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(wish)

    async def release(self) -> None:
        """Let the cluster live on without us: from now on our end is not its end.

        Raises:
            StartError: it is not ready yet, or gone.
        """
        if self._control is None:
            raise StartError("the cluster is not ready yet", code="still_starting")
        await request(self._control, Release())
        # asyncio kills a child that it forgets; as far as it knows, this one has ended.
        transport = self._process._transport  # type: ignore[attr-defined]  # noqa: SLF001
        transport.get_extra_info("subprocess").returncode = 0
        self._lifeline.close()

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        code = await self._process.wait()
        self._lifeline.close()
        self._config.unlink(missing_ok=True)
        return code

    async def _silent_exit(self) -> Exit:
        code = await self.wait()
        tail = read_tail(self._log)
        text = "\n  ".join((f"the supervisor ended without a word (exit code {code})", *tail))
        report = ErrorReport(code="supervisor_gone", message=text, hint=f"its log: {self._log}")
        return Exit(code=code if code > 0 else 70, error=report)


def _remove(name: str) -> None:
    Path(name).unlink(missing_ok=True)


def _open_log(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")
