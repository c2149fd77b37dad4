"""What the supervisor tells the foreground: lines of JSON on its standard output."""

from __future__ import annotations

import asyncio
import logging
import os
from enum import StrEnum
from typing import Final

import msgspec

from anyserve.errors import ProtocolError
from anyserve.runtime.logs import ErrorReport

_LOG = logging.getLogger(__name__)
_BACKLOG_LIMIT_BYTES: Final = 1024 * 1024


class StepState(StrEnum):
    """How far a step of the start, the run or the tear-down is."""

    STARTED = "started"
    PROGRESS = "progress"
    OK = "ok"
    FAILED = "failed"


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """Base of all lines. `t`: seconds since the supervisor began."""

    t: float = 0.0


class Step(Progress, frozen=True, tag="step"):
    """One step, named after what it starts or stops: `broker`, `scheduler`, `replica s1`, ..."""

    name: str
    state: StepState
    detail: str = ""


class Ready(Progress, frozen=True, tag="ready"):
    """All replicas are ready; the traffic begins now, where there is any."""

    cluster: str
    broker: str
    control: str


class Notice(Progress, frozen=True, tag="notice"):
    """Something that the reader should know and that the cluster lives with."""

    text: str


class TrafficEnded(Progress, frozen=True, tag="traffic_ended"):
    """The player is done and the recorder has written all; said before anything else is stopped."""

    kept: bool = False


class Exit(Progress, frozen=True, tag="exit"):
    """The last line: everything is torn down, and the supervisor ends with `code`."""

    code: int
    reason: str = ""
    error: ErrorReport | None = None


AnyProgress = Step | Ready | Notice | TrafficEnded | Exit
_decoder: Final[msgspec.json.Decoder[AnyProgress]] = msgspec.json.Decoder(AnyProgress)


def encode_progress(line: AnyProgress) -> bytes:
    """One line, newline included."""
    return msgspec.json.encode(line) + b"\n"


def decode_progress(line: bytes) -> AnyProgress:
    """Read one line.

    Raises:
        ProtocolError: it is none of ours.
    """
    try:
        return _decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not a progress line: {error}", code="progress_line") from None


class ProgressPipe:
    """Writes lines to a pipe without ever blocking; a reader that is gone is forgotten.

    A reader that is slow gets its lines later, up to a bound; beyond it lines are dropped.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting = bytearray()
        self._open = True
        self._armed = False
        self._empty = asyncio.Event()
        os.set_blocking(fd, False)

    def write(self, line: AnyProgress) -> None:
        """Send one line."""
        if not self._open:
            return
        encoded = encode_progress(line)
        if len(self._waiting) + len(encoded) > _BACKLOG_LIMIT_BYTES:
            _LOG.warning("the foreground does not read: a progress line is dropped")
            return
        self._waiting += encoded
        self._empty.clear()
        self._flush()

    async def drain(self, timeout_s: float) -> None:
        """Wait until all lines are out, the reader is gone, or the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                if self._waiting:
                    await self._empty.wait()
        except TimeoutError:
            _LOG.warning("the foreground did not read the last progress lines")

    def _flush(self) -> None:
        try:
            while self._waiting:
                written = os.write(self._fd, self._waiting)
                del self._waiting[:written]
        except BlockingIOError:
            self._arm()
            return
        except OSError as error:
            _LOG.info("the foreground is gone: %s", error)
            self._open = False
            self._waiting.clear()
        self._empty.set()
        self._disarm()

    def _arm(self) -> None:
        if not self._armed:
            asyncio.get_running_loop().add_writer(self._fd, self._flush)
            self._armed = True

    def _disarm(self) -> None:
        if self._armed:
            asyncio.get_running_loop().remove_writer(self._fd)
            self._armed = False
