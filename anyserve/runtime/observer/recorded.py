"""The run's own log, read while it is written: what was said before somebody began to listen."""

from __future__ import annotations

import logging
import threading
from io import BufferedReader
from pathlib import Path
from typing import Final

import msgspec

from anyserve.core.events import Envelope

_LOG = logging.getLogger(__name__)
_CHUNK_BYTES: Final = 1024 * 1024


class RecordedSoFar:
    """`events.jsonl` of a run, from its beginning to wherever the recorder is now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BufferedReader | None = None
        self._lock = threading.Lock()  # it is read in a thread, and may be closed meanwhile
        self._closed = False
        self._rest = b""
        self._decoder = msgspec.json.Decoder(Envelope)

    def read(self) -> list[Envelope] | None:
        """The next envelopes; empty where a chunk held no whole line, None at the end for now.

        A file that is not there, or may not be read, has no end to come to: None.
        """
        try:
            chunk = self._chunk()
        except OSError as error:
            _LOG.info("the log of the run cannot be read: %s", error)
            return None
        if not chunk:
            return None
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        return [envelope for line in lines if (envelope := self._decode(line)) is not None]

    def close(self) -> None:
        """Close the file; nothing is read from then on. A second call does nothing."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()
                self._file = None

    def _chunk(self) -> bytes:
        with self._lock:
            if self._closed:
                return b""
            if self._file is None:
                self._file = self._path.open("rb")
            return self._file.read(_CHUNK_BYTES)

    def _decode(self, line: bytes) -> Envelope | None:
        try:
            return self._decoder.decode(line)
        except msgspec.MsgspecError:  # an event of another version: the bus tells it no better
            return None
