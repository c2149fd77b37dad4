"""What replica and worker say to each other about handlers; part of `runtime/worker/ipc.py`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from anyserve.core.messages import NO_DATA
from anyserve.core.objects import ObjRef
from anyserve.core.spec import ObjectsSpec


class ObjectsConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a process finds the object plane of its host, and what it may do there."""

    directory: str
    """Shared by all processes of the cluster on this host; private to its user (0700)."""
    rules: ObjectsSpec = ObjectsSpec()
    url: str = ""
    """Where other hosts get copies: of the ingress that serves this host's objects."""
    token: str = ""
    """What this cluster's object servers want to see."""


class AppConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The app that a worker runs, and what its handlers may use."""

    name: str
    """`module:attribute`."""
    directory: str = ""
    """Where its module is looked for first."""
    serves: tuple[str, ...] = ()
    """The capabilities that this replica registers with it."""
    concurrency: int = 16
    objects: ObjectsConfig | None = None
    reloads: bool = False
    """Its code changes while it runs: no compiled copies, whose age is told in whole seconds."""
    stop_grace_s: float = 2.0
    """How long running handlers may go on after the wish to stop."""


class Payload(msgspec.Struct, frozen=True, omit_defaults=True):
    """JSON, or the object that holds it. Both are wrapped so that `null` is a payload too."""

    json: bytes = b"null"
    ref: ObjRef | None = None


# --- replica -> worker -------------------------------------------------------------------------


class Handle(msgspec.Struct, frozen=True, tag="handle", kw_only=True, omit_defaults=True):
    """Run the handler of `capability` on this; `key` names the attempt."""

    key: str
    request_id: str
    capability: str
    payload: Payload = Payload()
    attributes: Mapping[str, str] = {}
    priority: int = 0
    depth: int = 0
    deadline_ns: int | None = None
    """On this machine's monotonic clock."""


class CallPiece(msgspec.Struct, frozen=True, tag="call_piece"):
    """A piece of the answer to a call. `item`: one of a stream."""

    call: int
    payload: Payload
    item: bool = False


class CallEnded(msgspec.Struct, frozen=True, tag="call_ended", omit_defaults=True):
    """A call is over: completed where `code` is empty. Nothing follows."""

    call: int
    code: str = ""
    message: str = ""
    retry_after_ms: int | None = None


# --- worker -> replica -------------------------------------------------------------------------


class Output(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a handler did: a result or an item, and whether that was all."""

    key: str
    payload: Payload | None = None
    item: bool = False
    done: bool = False
    error: str | None = None
    code: str = ""
    began_ns: int = 0
    """With the first output: when the handler was called, on the monotonic clock."""


class Outputs(msgspec.Struct, frozen=True, tag="outputs"):
    """All that handlers gave within one turn of their loop."""

    outputs: list[Output]


class Call(msgspec.Struct, frozen=True, tag="call", kw_only=True, omit_defaults=True):
    """A handler asks for a capability. `call` is unique in the life of the worker."""

    call: int
    key: str
    capability: str
    payload: Payload = Payload()
    attributes: Mapping[str, str] = {}
    streamed: bool = False
    timeout_ms: int | None = None
    priority: int | None = None


class CallCancel(msgspec.Struct, frozen=True, tag="call_cancel"):
    """Nobody waits for the answer any more; nothing more is sent of it."""

    call: int


EMPTY = Payload(bytes(NO_DATA))
HandlerCommand = Handle | CallPiece | CallEnded
HandlerReport = Outputs | Call | CallCancel
