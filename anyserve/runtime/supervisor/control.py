"""What a supervisor can be asked on its control socket."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from anyserve.runtime.control import LineClient, LineServer, Request
from anyserve.runtime.node_control import ConnectionFault

Target = Literal["replica", "worker"]


class Status(Request, frozen=True, tag="status"):
    """What runs: answered by `ClusterStatus`."""


class Stop(Request, frozen=True, tag="stop"):
    """Tear the cluster down; `drain` lets requests that run come to their end."""

    drain: bool = True


class Kill(Request, frozen=True, tag="kill"):
    """SIGKILL a replica's process, or its worker."""

    target: Target
    id: str


class Hang(Request, frozen=True, tag="hang"):
    """SIGSTOP a replica's process, or its worker; `duration_s` None: until `resume`."""

    target: Target
    id: str
    duration_s: float | None = None


class Resume(Request, frozen=True, tag="resume"):
    """End a hang; a drained replica takes work again."""

    target: Target
    id: str


class Slow(Request, frozen=True, tag="slow"):
    """Make a replica's engine `factor` times slower; 1 ends it."""

    id: str
    factor: float


class Drain(Request, frozen=True, tag="drain"):
    """A replica takes no more work and gives back what has not begun."""

    id: str


class Restart(Request, frozen=True, tag="restart"):
    """End a process in order and start it again at once; `name` as in `status`, or `broker`."""

    name: str


class Crash(Request, frozen=True, tag="crash"):
    """SIGKILL a process and start it again after `down_s`; `name` as in `restart`."""

    name: str
    down_s: float = 0.0


class Disturb(Request, frozen=True, tag="disturb"):
    """Do to a replica's connection what its node understands; `duration_s` None: until undone."""

    id: str
    how: ConnectionFault
    duration_s: float | None = None


class Rate(Request, frozen=True, tag="rate"):
    """Offer the rest of the traffic `factor` times as fast as planned; 0 pauses it."""

    factor: float


class Release(Request, frozen=True, tag="release"):
    """The cluster outlives its foreground process, and the end of its traffic."""


AnyRequest = (
    Status | Stop | Kill | Hang | Resume | Slow | Drain | Restart | Release | Crash | Disturb | Rate
)  # fmt: skip


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One process. `started_s` is wall clock; `state` a `ChildState` value."""

    name: str
    state: str
    pid: int | None = None
    started_s: float | None = None
    restarts: int = 0
    last_exit: str = ""


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One replica as it registered itself."""

    id: str
    state: str
    worker_pid: int | None = None


class DoorStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where clients come in. `name` of the ingress; `replica`: in whose process, empty: its own."""

    name: str
    http: str = ""
    grpc: str = ""
    replica: str = ""


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole cluster. `state`: starting, running, idle (kept, no traffic), stopping."""

    cluster: str
    state: str
    broker: str
    run_dir: str
    uptime_s: float
    kept: bool = False
    processes: list[ProcessStatus] = []
    replicas: list[ReplicaStatus] = []
    doors: list[DoorStatus] = []


class ControlServer(LineServer):
    """Serves a supervisor's socket."""

    def __init__(self, path: Path, handler: Callable[[AnyRequest], Awaitable[Any]]) -> None:
        super().__init__(path, handler, AnyRequest)


class ControlClient(LineClient):
    """Talks to a supervisor."""

    async def status(self) -> ClusterStatus:
        """What runs."""
        raw = await self.ask(Status())
        return msgspec.json.decode(raw, type=ClusterStatus)


async def request(path: Path, wanted: AnyRequest, *, timeout_s: float = 10.0) -> Any:
    """One request on a connection of its own; returns the decoded JSON of the result."""
    async with ControlClient(path, timeout_s=timeout_s) as client:
        return msgspec.json.decode(await client.ask(wanted))


def socket_path(directory: Path) -> Path:
    """Where the socket of a cluster lies in its private directory."""
    return Path(os.path.abspath(directory)) / "control"  # noqa: PTH100 - no symlink resolution
