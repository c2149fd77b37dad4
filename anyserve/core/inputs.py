"""What a driver tells a state machine that no message carries."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from anyserve.core.messages import Code, Request


class Input(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Base of all local inputs."""


class Wake(Input, frozen=True):
    """The timer fired."""


class BusUp(Input, frozen=True):
    """The connection stands (again); `connection` counts successful connects."""

    connection: int


class BusDown(Input, frozen=True):
    """The connection broke: liveness timers freeze until it is back."""


class Pressure(Input, frozen=True):
    """The driver's incoming backlog is above (`high`) or below its high-water mark."""

    high: bool


class Offered(Input, frozen=True):
    """Origin: a client wants this. `entry` is `scheduler` or a replica's id; `intended_ns` is when
    it should have been sent; `resumable` is False for guided decoding and for n > 1."""

    request: Request
    entry: str
    intended_ns: int
    stream: str = ""
    phase: str = ""
    resumable: bool = True
    choices: int = 1


class Cancelled(Input, frozen=True):
    """Origin: the client went away, the run is being stopped, or (`DEADLINE_EXCEEDED`) the client's
    time is up before the deadline of the request itself."""

    id: str
    code: Code = Code.CLIENT_CANCELLED


class Enough(Input, frozen=True):
    """Origin: the client has all it wanted (its stop string came); the request is completed."""

    id: str


class WorkerReady(Input, frozen=True):
    """Replica: the engine is loaded. `max_tokens`: its context length, where it has one."""

    max_tokens: int | None = None
    engine: str = ""


class WorkerDied(Input, frozen=True):
    """Replica: the worker is gone with all it ran. `final`: it will not be started again."""

    reason: str
    final: bool = False


class Delta(Input, frozen=True):
    """What one engine step did for one choice of one attempt.

    `done` ends the whole attempt, with `finish` per choice so far known from each choice's last
    delta. `scheduled_ns` is set once, when the engine first gave the attempt a place in a step.
    """

    id: str
    attempt: int
    choice: int = 0
    tokens: list[int] = []
    data: msgspec.Raw | None = None
    gaps: Mapping[int, int] = {}
    """As in `Frame`: for a driver that reports the tokens of several steps together."""
    scheduled_ns: int | None = None
    finish: str | None = None
    done: bool = False
    error: str | None = None
    error_code: Code = Code.ENGINE_ERROR
    cached_tokens: int | None = None


class Stepped(Input, frozen=True):
    """Replica: the engine ended a step (or refused an attempt at its door)."""

    deltas: list[Delta]
    kv_usage: float | None = None


class Drain(Input, frozen=True):
    """Replica: take nothing new, finish what runs. `stop` says that the process ends after it."""


class Stopping(Input, frozen=True):
    """Replica: the process ends now."""
