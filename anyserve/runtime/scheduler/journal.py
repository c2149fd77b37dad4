"""The scheduler's journal: one JSON record a line, in the file before anything is sent."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from anyserve.core.effects import JournalRecord
from anyserve.runtime.wire import encode

_LOG = logging.getLogger(__name__)
COMPACT_AFTER: Final = 50_000
"""Records, after which the file is written anew with what still matters."""


class Journal:
    """Appends to a file; survives the death of the process, not of the host (no fsync)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records = 0
        self._fd: int | None = None

    def read(self) -> list[JournalRecord]:
        """All records; a torn last line, the trace of a crash, is dropped."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        records = []
        for number, line in enumerate(lines, 1):
            try:
                records.append(msgspec.json.decode(line, type=JournalRecord))
            except msgspec.MsgspecError as error:
                _LOG.warning("line %d of the journal is not a record: %s", number, error)
        return records

    def begin(self, records: list[JournalRecord]) -> None:
        """Write the file anew with these records, and append to it from now on."""
        part = self._path.with_name(f"{self._path.name}.part")
        part.write_bytes(b"".join(encode(record) + b"\n" for record in records))
        part.replace(self._path)
        self.close()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._records = len(records)

    def append(self, record: JournalRecord, shortest: Callable[[], list[JournalRecord]]) -> None:
        """Add one record; `shortest` gives the records to keep when the file has grown."""
        if self._fd is None:
            message = "the journal was not begun"
            raise ValueError(message)
        os.write(self._fd, encode(record) + b"\n")
        self._records += 1
        if self._records > COMPACT_AFTER:
            kept = shortest()
            if len(kept) < self._records // 2:
                self.begin(kept)

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
