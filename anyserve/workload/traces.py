"""Traces of real traffic: Azure's and BurstGPT's CSV, Mooncake's JSONL, and our own recorded runs.

azure      TIMESTAMP (UTC), ContextTokens, GeneratedTokens
burstgpt   Timestamp (s), Model, Request tokens, Response tokens, Total tokens, Log Type
mooncake   timestamp (ms), input_length, output_length, hash_ids (one per block of 512 tokens)
run        the directory of a run: its offered requests
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

import msgspec

from anyserve.errors import UsageError
from anyserve.workload.schema import Trace

MOONCAKE_BLOCK: Final = 512
_NS: Final = 1_000_000_000
_FORMATS: Final = "azure, burstgpt, mooncake, run"


class TraceRow(NamedTuple):
    """One request of a trace. `segments`: (name of the text, tokens); None: nobody else's."""

    at_ns: int
    segments: tuple[tuple[str | None, int], ...]
    output_tokens: int


class _Row(NamedTuple):
    """One request as the file has it."""

    at_ns: int
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


def read_trace(trace: Trace, directory: Path | None = None) -> Iterator[TraceRow]:
    """The requests of a trace in order of time, the first one at 0.

    Raises:
        UsageError: it cannot be read: which line, and why.
    """
    path = Path(trace.file)
    if not path.is_absolute() and directory is not None:
        path = directory / path
    rows = sorted(_rows(path, trace.format), key=lambda row: row.at_ns)
    first_ns = rows[0].at_ns if rows else 0
    kept = (row for row in rows if row.at_ns - first_ns >= trace.start)
    start_ns: int | None = None
    for number, row in enumerate(kept):
        if trace.limit is not None and number >= trace.limit:
            return
        start_ns = row.at_ns if start_ns is None else start_ns
        yield TraceRow(
            at_ns=round((row.at_ns - start_ns) / trace.speed),
            segments=_segments(row, trace.lengths),
            output_tokens=_scaled(row.output_tokens, trace.lengths),
        )


def _segments(row: _Row, factor: float) -> tuple[tuple[str | None, int], ...]:
    if not row.blocks:
        return ((None, _scaled(row.prompt_tokens, factor)),)
    left = row.prompt_tokens
    found: list[tuple[str | None, int]] = []
    for block in row.blocks:
        if left <= 0:
            break
        found.append((str(block), _scaled(min(left, MOONCAKE_BLOCK), factor)))
        left -= MOONCAKE_BLOCK
    return tuple(found)


def _scaled(tokens: int, factor: float) -> int:
    return max(1, round(tokens * factor))


def _rows(path: Path, name: str | None) -> Iterator[_Row]:
    if path.is_dir() or name == "run":
        yield from _run_rows(path)
        return
    try:
        with path.open(encoding="utf-8", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = _READERS[name or _guess(path, first)]
            yield from reader(file, path)
    except OSError as error:
        message = f"the trace {path} cannot be read: {error.strerror}"
        hint = "a relative path is looked for beside the scenario file"
        raise UsageError(message, code="trace_missing", hint=hint) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the trace {path} is no text", code="trace_invalid") from error


def _guess(path: Path, first: str) -> str:
    if first.lstrip().startswith("{"):
        return "mooncake"
    columns = first.lower()
    if "contexttokens" in columns:
        return "azure"
    if "request tokens" in columns:
        return "burstgpt"
    message = f"{path} begins like no known trace: {first.strip()[:60]!r}"
    raise UsageError(message, code="trace_format", hint=f"known formats: {_FORMATS}")


def _csv_rows(
    file: TextIO, path: Path, read: Callable[[Mapping[str, str]], _Row | None]
) -> Iterator[_Row]:
    for number, fields in enumerate(csv.DictReader(file), start=2):
        try:
            row = read({(key or "").strip().lower(): value for key, value in fields.items()})
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            message = f"{path}:{number}: not a request of this trace: {error}"
            raise UsageError(message, code="trace_invalid") from error
        if row is not None:
            yield row


def _azure(file: TextIO, path: Path) -> Iterator[_Row]:
    return _csv_rows(
        file,
        path,
        lambda row: _Row(
            _utc_ns(row["timestamp"]), int(row["contexttokens"]), int(row["generatedtokens"])
        ),
    )


def _utc_ns(text: str) -> int:
    """`2023-11-16 18:17:03.9799600`, to the last digit."""
    whole, _, part = text.strip().partition(".")
    moment = datetime.fromisoformat(f"{whole}+00:00")
    return int(moment.timestamp()) * _NS + int(f"{part or '0':0<9}"[:9])


def _burstgpt(file: TextIO, path: Path) -> Iterator[_Row]:
    def read(row: Mapping[str, str]) -> _Row | None:
        answer = int(row["response tokens"])
        if not answer:
            return None  # the service failed to answer it
        return _Row(round(float(row["timestamp"]) * _NS), int(row["request tokens"]), answer)

    return _csv_rows(file, path, read)


def _mooncake(file: TextIO, path: Path) -> Iterator[_Row]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row: dict[str, Any] = msgspec.json.decode(line)
            yield _Row(
                round(float(row["timestamp"]) * 1_000_000),
                int(row["input_length"]),
                int(row["output_length"]),
                tuple(int(block) for block in row.get("hash_ids", ())),
            )
        except (KeyError, ValueError, TypeError) as error:
            message = f"{path}:{number}: not a request of this trace: {error}"
            raise UsageError(message, code="trace_invalid") from error


class _Offered(msgspec.Struct):
    type: str = ""
    intended_ns: int = 0
    prompt_tokens: int = 0
    max_tokens: int = 0


class _Line(msgspec.Struct):
    event: _Offered


def _run_rows(path: Path) -> Iterator[_Row]:
    """The offered requests of a recorded run: its plain event log is read line by line."""
    log = path / "events.jsonl" if path.is_dir() else path
    try:
        with log.open("rb") as file:
            for line in file:
                event = msgspec.json.decode(line, type=_Line).event
                if event.type == "request.offered":
                    yield _Row(event.intended_ns, event.prompt_tokens, event.max_tokens)
    except OSError as error:
        message = f"the run {path} cannot be read: {error.strerror}"
        raise UsageError(message, code="trace_missing", hint="name the run's directory") from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"{log} is no event log: {error}", code="trace_invalid") from error


_READERS: Final[Mapping[str, Callable[[TextIO, Path], Iterator[_Row]]]] = {
    "azure": _azure,
    "burstgpt": _burstgpt,
    "mooncake": _mooncake,
}
