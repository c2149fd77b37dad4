"""A bug of ours: what happened goes to a file, and the user learns where it is."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

from anyserve.errors import AnyServeError
from anyserve.runtime.join import PASSWORD_ENV
from anyserve.runtime.logs import Redactor
from anyserve.version import __version__


class InternalError(AnyServeError):
    """Something that must not happen."""

    exit_code = 70


def report_crash(error: BaseException) -> InternalError:
    """Write the crash report and say where it is."""
    redact = Redactor([os.environ.get(PASSWORD_ENV, "")])
    text = redact(_describe(error))
    brief = redact(f"{type(error).__name__}: {error}")
    path = _write(text)
    where = f"what happened is in {path}" if path else f"no report could be written:\n{text}"
    return InternalError(
        f"a bug in AnyServe: {brief}",
        code="internal",
        hint=f"{where}; please report it with that file",
    )


def _describe(error: BaseException) -> str:
    # Arguments are left out: they may hold prompts.
    command = " ".join(["anyserve", *sys.argv[1:2]])
    trace = "".join(traceback.format_exception(error))
    machine = f"{platform.platform()}, Python {platform.python_version()}"
    return f"anyserve {__version__} on {machine}\ncommand: {command}\n\n{trace}"


def _write(text: str) -> Path | None:
    base = os.environ.get("XDG_STATE_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for directory in (root / "anyserve" / "crashes", Path(tempfile.gettempdir())):
        path = directory / f"anyserve-crash-{stamp}-{os.getpid()}.txt"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError:
            continue
        return path
    return None
