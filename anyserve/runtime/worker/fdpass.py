"""Framed messages that may carry one open file descriptor (replica -> zygote)."""

from __future__ import annotations

import socket

import msgspec

from anyserve.runtime.worker.ipc import encode_frame

_READ_BYTES = 1 << 16


class Fork(msgspec.Struct, frozen=True, tag="fork"):
    """Start a worker on the descriptor that comes with this message."""

    log_path: str = ""
    env: dict[str, str] = {}


class Forked(msgspec.Struct, frozen=True, tag="forked"):
    """The worker runs."""

    pid: int


class Exited(msgspec.Struct, frozen=True, tag="exited"):
    """The worker ended: with an exit code, or by a signal."""

    pid: int
    code: int | None = None
    signal: int | None = None


ZygoteReply = Forked | Exited


def send_with_fd(sock: socket.socket, message: msgspec.Struct, fd: int) -> None:
    """Send one frame with a descriptor attached to its first byte.

    Raises:
        OSError: The peer is gone.
    """
    frame = encode_frame(message)
    sent = socket.send_fds(sock, [frame], [fd])
    if sent < len(frame):
        sock.sendall(frame[sent:])


def receive_with_fds(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Receive bytes and the descriptors that came with them; no bytes at the end.

    Raises:
        OSError: The connection broke.
    """
    data, fds, _flags, _address = socket.recv_fds(sock, _READ_BYTES, maxfds=1)
    return data, list(fds)
