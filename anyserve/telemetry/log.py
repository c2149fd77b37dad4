"""The event log: newline-delimited JSON of `Envelope`, plain or zstd, written, read and merged.

A log outlives the processes that wrote it, so the reader forgives what a crash leaves behind (a
torn last line, an unfinished zstd frame) and what a newer version adds (unknown event types). It
counts all of that in a `ReadReport`, because a log that lost events must never look whole.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self, get_args

import msgspec
import zstandard

from anyserve.core.events import AnyEvent, Envelope
from anyserve.telemetry.gaps import GapCounter

COMPRESSED_SUFFIX = ".zst"
BUFFERED_EVENTS = 512

KNOWN_TYPES = frozenset(str(event.__struct_config__.tag) for event in get_args(AnyEvent))


class _Tag(msgspec.Struct):
    type: str


class _Header(msgspec.Struct):
    source: str
    incarnation: int
    seq: int
    event: _Tag


@dataclass(slots=True)
class ReadReport:
    """What a reader met besides events; `gaps` has also seen the events of unknown types."""

    events: int = 0
    malformed: int = 0
    torn: bool = False
    unknown: Counter[str] = field(default_factory=Counter)
    gaps: GapCounter = field(default_factory=GapCounter)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why this log is not whole, in words; empty where it is."""
        found = []
        if self.gaps.missing:
            found.append(f"{self.gaps.missing} events missing")
        if self.torn:
            found.append("the end of the log is torn")
        if self.malformed:
            found.append(f"{self.malformed} malformed lines")
        return tuple(found)


class EventLogWriter:
    """Appends envelopes to a log file, buffered; compressed where the name ends in `.zst`.

    `flush()` puts everything written so far where a reader of the file sees it.
    """

    def __init__(self, path: Path, *, buffered_events: int = BUFFERED_EVENTS) -> None:
        self._encoder = msgspec.json.Encoder()
        self._pending: list[Envelope] = []
        self._buffered_events = buffered_events
        self._raw = path.open("ab")
        self._zstd: zstandard.ZstdCompressionWriter | None = None
        if path.suffix == COMPRESSED_SUFFIX:
            compressor = zstandard.ZstdCompressor(level=3)
            self._zstd = compressor.stream_writer(self._raw, closefd=False)
        elif _ends_torn(path):
            self._raw.write(b"\n")

    def write(self, envelope: Envelope) -> None:
        """Append one envelope."""
        self._pending.append(envelope)
        if len(self._pending) >= self._buffered_events:
            self._drain()

    def write_all(self, envelopes: Iterable[Envelope]) -> None:
        """Append many envelopes."""
        for envelope in envelopes:
            self.write(envelope)

    def flush(self) -> None:
        """Hand everything written so far to the operating system."""
        self._drain()
        if self._zstd is not None:
            self._zstd.flush(zstandard.FLUSH_BLOCK)
        self._raw.flush()

    def close(self) -> None:
        """Flush, finish the compressed frame and close; a second call does nothing."""
        if self._raw.closed:
            return
        self._drain()
        if self._zstd is not None:
            self._zstd.flush(zstandard.FLUSH_FRAME)
        self._raw.close()

    def _drain(self) -> None:
        if not self._pending:
            return
        lines = self._encoder.encode_lines(self._pending)
        self._pending.clear()
        if self._zstd is None:
            self._raw.write(lines)
        else:
            self._zstd.write(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_events(path: Path, report: ReadReport | None = None) -> Iterator[Envelope]:
    """Envelopes of a log in file order; what cannot be read is counted in `report`.

    Raises:
        OSError: the file cannot be opened.
    """
    report = ReadReport() if report is None else report
    decoder = msgspec.json.Decoder(Envelope)
    for line in _lines(path, report):
        envelope = _decode(decoder, line, report)
        if envelope is not None:
            report.events += 1
            report.gaps.add(envelope.source, envelope.incarnation, envelope.seq)
            yield envelope


def merge(sources: Iterable[Iterable[Envelope]]) -> list[Envelope]:
    """One sequence out of several logs of one run.

    Each `(source, incarnation, seq)` stands once. Within one boot envelopes are in order of `t`,
    equal times in order of arrival. Clocks of different boots do not compare, so each boot's
    ordered envelopes fill the places that envelopes of that boot had in order of arrival.
    """
    seen = GapCounter()
    arrived = [
        envelope
        for source in sources
        for envelope in source
        if seen.add(envelope.source, envelope.incarnation, envelope.seq)
    ]
    places: dict[str, list[int]] = {}
    for index, envelope in enumerate(arrived):
        places.setdefault(envelope.boot, []).append(index)
    merged = list(arrived)
    for indexes in places.values():
        in_time = sorted((arrived[index] for index in indexes), key=lambda one: one.t)
        for index, envelope in zip(indexes, in_time, strict=True):
            merged[index] = envelope
    return merged


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, io.SEEK_END) == 0:
            return False
        file.seek(-1, io.SEEK_END)
        return file.read(1) != b"\n"


def _lines(path: Path, report: ReadReport) -> Iterator[bytes]:
    if path.suffix != COMPRESSED_SUFFIX:
        with path.open("rb") as file:
            yield from file
        return
    with path.open("rb") as file:
        yield from _decompressed_lines(file, report)


def _decompressed_lines(file: IO[bytes], report: ReadReport) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    rest = b""
    while True:
        try:
            chunk = reader.read(1 << 20)
        except zstandard.ZstdError:
            report.torn = True
            break
        if not chunk:
            break
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def _decode(
    decoder: msgspec.json.Decoder[Envelope], line: bytes, report: ReadReport
) -> Envelope | None:
    if not line.strip():
        return None
    try:
        return decoder.decode(line)
    except msgspec.DecodeError:
        _count_unreadable(line, report)
        return None


def _count_unreadable(line: bytes, report: ReadReport) -> None:
    try:
        header = msgspec.json.decode(line, type=_Header)
    except msgspec.DecodeError:
        if line.endswith(b"\n"):
            report.malformed += 1
        else:
            report.torn = True
        return
    report.gaps.add(header.source, header.incarnation, header.seq)
    if header.event.type in KNOWN_TYPES:
        report.malformed += 1
    else:
        report.unknown[header.event.type] += 1
