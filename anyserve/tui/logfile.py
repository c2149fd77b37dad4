"""The end of a log that another process writes: what was added is read, and no more."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

TAIL_BYTES = 64 * 1024
TAIL_LINES = 200
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours and the like, for terminals."""


class LogKind(Enum):
    """Whose log: the value is the beginning of the file's name."""

    WORKER = "worker"
    REPLICA = "replica"

    @property
    def other(self) -> LogKind:
        """The other one."""
        return LogKind.REPLICA if self is LogKind.WORKER else LogKind.WORKER


def log_path(facts: Mapping[str, str], replica: str, kind: LogKind) -> Path | None:
    """Where a replica, or its worker, writes; None where nobody said where the run is recorded."""
    told = facts.get(f"log.{kind.value} {replica}", "")
    run_dir = facts.get("run_dir", "")
    if told:
        return Path(told)
    return Path(run_dir) / "logs" / f"{kind.value}-{replica}.log" if run_dir else None


def why_no_lines(path: Path | None, lines: tuple[LogLine, ...] | None, kind: LogKind) -> str:
    """Why there is nothing to show of a log; empty where there is something."""
    if lines:
        return ""
    if path is None:
        return "it is not known where this run is recorded, so there is no log to show"
    if lines is not None:
        return f"the {kind.value} has written nothing to {path}"
    if not path.parent.is_dir():
        return f"no logs are at hand: {path.parent} is not on this machine, or was not kept"
    return f"there is no log of the {kind.value}: {path}"


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line and its number, from the first one that was read."""

    number: int
    text: str


class LogTail:
    """The last lines of a file, at most `most_lines` from its last `most_bytes`."""

    def __init__(
        self, path: Path, *, most_lines: int = TAIL_LINES, most_bytes: int = TAIL_BYTES
    ) -> None:
        self.path = path
        self._most_bytes = most_bytes
        self._kept: deque[LogLine] = deque(maxlen=most_lines)
        self._identity: tuple[int, int] | None = None
        self._offset = 0
        self._next = 1
        self._rest = b""
        self._lines: tuple[LogLine, ...] | None = None
        self.whole = True
        """Nothing was left out at the beginning."""

    def lines(self) -> tuple[LogLine, ...] | None:
        """The lines, the same object until there are more; None: no such file, or it may not be
        read."""
        try:
            stat = self.path.stat()
            identity = (stat.st_dev, stat.st_ino)
            if identity != self._identity or stat.st_size < self._offset:
                self._begin(identity)
            if self._lines is None or stat.st_size > self._offset:
                self._read(stat.st_size)
        except OSError:
            self._identity, self._lines = None, None
        return self._lines

    def _begin(self, identity: tuple[int, int]) -> None:
        self._identity, self._lines = identity, None
        self._kept.clear()
        self._offset, self._next, self._rest, self.whole = 0, 1, b"", True

    def _read(self, size: int) -> None:
        skipped = size - self._offset > self._most_bytes
        with self.path.open("rb") as file:
            if skipped:
                self._rest, self.whole = b"", False
                self._kept.clear()
                self._offset = size - self._most_bytes
            file.seek(self._offset)
            data = file.read(size - self._offset)
        self._offset += len(data)
        ended = (self._rest + data).split(b"\n")
        self._rest = ended.pop()
        for raw in ended[1:] if skipped else ended:  # the first of them is no whole line
            self._keep(raw)
        self._lines = tuple(self._kept)
        if self._rest:
            self._lines += (LogLine(self._next, _text(self._rest)),)

    def _keep(self, raw: bytes) -> None:
        if len(self._kept) == self._kept.maxlen:
            self.whole = False
        self._kept.append(LogLine(self._next, _text(raw)))
        self._next += 1


def _text(raw: bytes) -> str:
    """As a terminal would show it: what a progress bar wrote over is gone."""
    shown = raw.decode("utf-8", "replace").rstrip("\r").rsplit("\r", 1)[-1]
    return _STEERING.sub("", shown).expandtabs()


def level_of(text: str) -> str:
    """`error`, `warn` or `info`, by the words that loggers write in front."""
    front = text[:80].upper()
    if "ERROR" in front or "CRITICAL" in front or front.startswith("TRACEBACK"):
        return "error"
    return "warn" if "WARN" in front else "info"
