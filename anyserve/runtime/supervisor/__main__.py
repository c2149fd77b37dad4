"""`python -m anyserve.runtime.supervisor CONFIG`: progress on stdout, its log on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Final

from anyserve.errors import AnyServeError, UsageError
from anyserve.runtime.bus.address import Credential
from anyserve.runtime.clusters import ClusterStore, state_dir
from anyserve.runtime.join import PASSWORD_ENV, SECRET_ENV
from anyserve.runtime.lifeline import watch_lifeline
from anyserve.runtime.logs import ErrorReport, Redactor, set_up_logging
from anyserve.runtime.supervisor.config import SupervisorConfig, load_supervisor_config
from anyserve.runtime.supervisor.ending import Ending, Urgency
from anyserve.runtime.supervisor.nodes import Command, node_command
from anyserve.runtime.supervisor.progress import Exit, ProgressPipe, encode_progress
from anyserve.runtime.supervisor.supervise import Supervision

_STDOUT: Final = 1
_TERMINATED: Final = 128 + signal.SIGTERM
_DRAIN_S: Final = 2.0


def main(command: Command = node_command) -> int:
    """Run the supervisor of the configuration that the command line names."""
    faulthandler.enable()
    environ = dict(os.environ)
    for name in SECRET_ENV:
        os.environ.pop(name, None)  # children get their own credential and no other
    try:
        if len(sys.argv) != 2:  # noqa: PLR2004 - the program and its configuration
            text = "expected one argument, the configuration file"
            raise UsageError(text, code="node_arguments")
        path = Path(sys.argv[1])
        config = load_supervisor_config(path)
        path.unlink(missing_ok=True)  # it may hold a password, and is of no more use
    except AnyServeError as error:
        line = Exit(code=error.exit_code, error=ErrorReport.of(error))
        os.write(_STDOUT, encode_progress(line))
        return error.exit_code
    set_up_logging(None, Redactor(_secrets(config, environ)), environ)
    return asyncio.run(_supervise(config, environ, command))


async def _supervise(config: SupervisorConfig, environ: dict[str, str], command: Command) -> int:
    loop = asyncio.get_running_loop()
    ending = Ending()
    pipe = ProgressPipe(_STDOUT)
    store = ClusterStore(state_dir(environ))
    supervision = Supervision(
        config, pipe.write, ending, store=store, environ=environ, command=command
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the foreground
    loop.add_signal_handler(signal.SIGHUP, supervision.foreground_gone)
    loop.add_signal_handler(signal.SIGTERM, _on_sigterm, ending)
    loop.add_signal_handler(signal.SIGQUIT, _on_sigquit, ending)
    watch_lifeline(lambda: _tell(loop, supervision))
    code = await supervision.run()
    await pipe.drain(_DRAIN_S)
    return code


def _tell(loop: asyncio.AbstractEventLoop, supervision: Supervision) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: we are leaving anyway
        loop.call_soon_threadsafe(supervision.foreground_gone)


def _on_sigterm(ending: Ending) -> None:
    urgency = Urgency.DRAIN if ending.urgency is Urgency.NONE else Urgency.NOW
    logging.getLogger(__name__).info("SIGTERM: %s", urgency.name)
    ending.request(urgency, "SIGTERM", exit_code=_TERMINATED)


def _on_sigquit(ending: Ending) -> None:
    logging.getLogger(__name__).info("SIGQUIT: %s", Urgency.NOW.name)
    ending.request(Urgency.NOW, "SIGQUIT", exit_code=_TERMINATED)


def _secrets(config: SupervisorConfig, environ: dict[str, str]) -> list[str]:
    given: list[Credential] = list((config.credentials or {}).values())
    return [login.password for login in given] + [environ.get(PASSWORD_ENV, "")]


if __name__ == "__main__":
    sys.exit(main())
