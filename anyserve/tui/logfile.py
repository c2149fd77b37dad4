"""The end of a log file, read again when it has grown."""

from __future__ import annotations

from pathlib import Path

_TAIL_BYTES = 64 * 1024


class LogTail:
    """The last lines of a file that another process writes."""

    def __init__(self, path: Path, most: int) -> None:
        self.path = path
        self._most = most
        self._seen: tuple[int, int] | None = None
        self._lines: list[str] | None = None

    def lines(self) -> list[str] | None:
        """The last lines; None where there is no such file, or it may not be read."""
        try:
            stat = self.path.stat()
            state = (stat.st_size, stat.st_mtime_ns)
            if state != self._seen:
                self._lines = self._read(stat.st_size)
                self._seen = state
        except OSError:
            self._lines, self._seen = None, None
        return self._lines

    def _read(self, size: int) -> list[str]:
        with self.path.open("rb") as file:
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", "replace")
        return text.splitlines()[-self._most :]
