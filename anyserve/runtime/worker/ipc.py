"""What replica and worker say to each other: framed msgpack over a local stream socket.

A frame is four bytes of length (big-endian) and that many bytes of one message. The first message
from the replica is `Start`; the worker answers with `Hello`, some `Loading`, and `Ready`.
"""

from __future__ import annotations

import socket
import struct
import threading

import msgspec

from anyserve.errors import ProtocolError
from anyserve.runtime.engines.base import (
    Delta,
    EngineConfig,
    EngineInfo,
    EngineRequest,
    EngineStats,
)
from anyserve.runtime.handlers.words import (
    AppConfig,
    Call,
    CallCancel,
    CallEnded,
    CallPiece,
    Handle,
    Outputs,
)

MAX_FRAME_BYTES = 64 << 20
_LENGTH = struct.Struct(">I")
_READ_BYTES = 1 << 16


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Build this engine, and run this app beside it (or alone). Sent once, first."""

    config: EngineConfig
    app: AppConfig | None = None


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """Compute this request; `request.key` names it from now on."""

    request: EngineRequest


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Forget a request at the next step boundary; answered by `Cancelled`."""

    key: str


class Slow(msgspec.Struct, frozen=True, tag="slow"):
    """Let every step take `factor` times as long (1 is normal speed)."""

    factor: float


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """End the process; what runs is dropped."""


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Ask for a `Pong` with the same number, from the step loop's thread."""

    number: int


Command = Start | Submit | Cancel | Slow | Stop | Ping | Handle | CallPiece | CallEnded


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The worker process runs."""

    pid: int


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """How far loading the engine has come."""

    stage: str
    fraction: float


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The engine takes requests."""

    info: EngineInfo
    load_ms: float
    """From `Start` to here."""


class Intake(msgspec.Struct, frozen=True, array_like=True):
    """When a request reached the engine, on the machine's monotonic clock."""

    key: str
    received_ns: int
    """Its `Submit` was read from the socket."""
    submitted_ns: int
    """The step loop handed it to the engine (a step boundary lies between)."""


class StepFrame(msgspec.Struct, frozen=True, tag="step", omit_defaults=True):
    """Everything that one engine step did, for all its requests."""

    number: int
    started_ns: int
    """Monotonic clock, before the step."""
    ended_ns: int
    deltas: list[Delta]
    stats: EngineStats
    intakes: list[Intake] = []
    """Requests that reached the engine since the frame before."""


class Cancelled(msgspec.Struct, frozen=True, tag="cancelled"):
    """The engine holds these requests no longer; no delta of them follows."""

    keys: list[str]


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """One request cannot be served; nothing of it runs."""

    key: str
    message: str
    code: str


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """Sent by a thread of its own twice a second, also while a step runs."""

    now_ns: int
    step_started_ns: int | None
    """When the running step began; None while the engine is idle or loading."""
    held: int
    """Requests in the engine."""


class Fatal(msgspec.Struct, frozen=True, tag="fatal"):
    """The engine is broken or could not start; the process ends now."""

    message: str
    code: str
    hint: str = ""


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """Answer to `Ping`."""

    number: int


Report = (
    Hello | Loading | Ready | StepFrame | Cancelled | Failed | Heartbeat | Fatal | Pong | Outputs
    | Call | CallCancel
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_reports: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)


def encode_frame(message: msgspec.Struct) -> bytes:
    """Encode one message with its length.

    Raises:
        ProtocolError: The message is larger than a frame may be.
    """
    payload = _encoder.encode(message)
    if len(payload) > MAX_FRAME_BYTES:
        raise ProtocolError(f"A frame of {len(payload)} bytes is too large.", code="frame_size")
    return _LENGTH.pack(len(payload)) + payload


def decode_command(payload: bytes) -> Command:
    """Decode what a replica sent.

    Raises:
        ProtocolError: It is no command.
    """
    try:
        return _commands.decode(payload)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"Not a worker command: {error}", code="bad_frame") from error


def decode_report(payload: bytes) -> Report:
    """Decode what a worker sent.

    Raises:
        ProtocolError: It is no report.
    """
    try:
        return _reports.decode(payload)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"Not a worker report: {error}", code="bad_frame") from error


class FrameBuffer:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes in and return the payloads that are complete.

        Raises:
            ProtocolError: The stream announces a frame larger than any of ours.
        """
        self._bytes += data
        payloads: list[bytes] = []
        start = 0
        while (end := self._end_of_frame(start)) is not None:
            payloads.append(bytes(self._bytes[start + _LENGTH.size : end]))
            start = end
        del self._bytes[:start]
        return payloads

    def _end_of_frame(self, start: int) -> int | None:
        if len(self._bytes) < start + _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._bytes, start)
        if length > MAX_FRAME_BYTES:
            raise ProtocolError(f"A frame of {length} bytes is too large.", code="frame_size")
        end = start + _LENGTH.size + int(length)
        return end if end <= len(self._bytes) else None


class FrameSocket:
    """A blocking socket that speaks frames. Any thread may send; one thread receives."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._buffer = FrameBuffer()
        self._sending = threading.Lock()

    def send(self, message: msgspec.Struct) -> None:
        """Send one message; blocks while the peer does not read.

        Raises:
            OSError: The peer is gone.
        """
        frame = encode_frame(message)
        with self._sending:
            self._sock.sendall(frame)

    def receive(self) -> list[bytes] | None:
        """Wait for bytes; the payloads they complete (maybe none), or None at the end."""
        data = self._sock.recv(_READ_BYTES)
        return self._buffer.feed(data) if data else None

    def close(self) -> None:
        """Close the socket; the peer sees the end."""
        self._sock.close()
