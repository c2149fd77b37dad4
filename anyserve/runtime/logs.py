"""Logs of our processes: one format, one redactor that hides credentials, and reading them back.

A process that the supervisor starts has its stdout and stderr on its log file too, so that what a
native library prints, or the interpreter on a crash, stands between the lines it belongs to.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from anyserve.errors import AnyServeError

LEVEL_ENV: Final = "ANYSERVE_LOG_LEVEL"
_HIDDEN: Final = "********"
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^/\s:@]*):[^/\s@]+@")
_SHORTEST_SECRET: Final = 4
"""Hiding every occurrence of something shorter would destroy ordinary text."""
_TAIL_BYTES: Final = 64 * 1024


class ErrorReport(msgspec.Struct, frozen=True, kw_only=True):
    """An `AnyServeError` on its way between processes."""

    code: str
    message: str
    hint: str = ""
    exit_code: int = 70

    @classmethod
    def of(cls, error: AnyServeError) -> ErrorReport:
        """The report of an error."""
        return cls(
            code=error.code, message=error.message, hint=error.hint, exit_code=error.exit_code
        )


class _ErrorLine(msgspec.Struct, frozen=True):
    error: ErrorReport


class Redactor:
    """Hides known secrets, and the password in any URL, in whatever text it is given."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        long_enough = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
        longest_first = sorted(long_enough, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if long_enough else None

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        text = _URL_PASSWORD.sub(rf"\1:{_HIDDEN}@", text)
        return text if self._known is None else self._known.sub(_HIDDEN, text)

    def report(self, report: ErrorReport) -> ErrorReport:
        """The same for an error on its way out of this process."""
        return msgspec.structs.replace(report, message=self(report.message), hint=self(report.hint))


class RedactingFormatter(logging.Formatter):
    """UTC time to the millisecond, level, logger, message; redacted, tracebacks included."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, redact: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        return self._redact(super().format(record))


def set_up_logging(
    path: Path | None, redact: Redactor, environ: Mapping[str, str]
) -> logging.Handler:
    """Send all logging of this process to `path` (append), or to stderr where it is None.

    The level comes from ANYSERVE_LOG_LEVEL; a word that is no level means INFO.
    """
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(RedactingFormatter(redact))
    level = logging.getLevelNamesMapping().get(environ.get(LEVEL_ENV, "").upper(), logging.INFO)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    return handler


def error_line(report: ErrorReport) -> bytes:
    """The one line of JSON by which a process says why it failed, newline included."""
    return msgspec.json.encode(_ErrorLine(report)) + b"\n"


def read_tail(path: Path, *, start: int = 0, lines: int = 12) -> list[str]:
    """The last lines of a log from byte `start` on; empty where there is no such file."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(start, end - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]


def find_error(lines: Iterable[str]) -> ErrorReport | None:
    """The last error that a process reported in these lines of its log."""
    for line in reversed(list(lines)):
        if line.startswith('{"error"'):
            try:
                return msgspec.json.decode(line, type=_ErrorLine).error
            except msgspec.MsgspecError:
                continue
    return None
