"""What a handler gets beside its request: calls, objects, the deadline, cancellation, a logger."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, TypeVar

from anyserve.core.objects import ObjRef

T = TypeVar("T")


class Objects(ABC):
    """Large payloads, kept outside the messages and named by an `ObjRef`.

    On one host `get` copies nothing: it maps the memory that `put` wrote, read-only.
    """

    @abstractmethod
    async def put(
        self, value: Any, *, content_type: str | None = None, ttl_s: float | None = None
    ) -> ObjRef:
        """Keep bytes, a numpy array, text, or anything JSON can say; for `ttl_s` seconds.

        Raises:
            ObjectError: `objects_full`: it does not fit, even when all that may go has gone.
            InvalidRequestError: the value cannot be kept (an array of Python objects, say).
        """

    @abstractmethod
    async def get(self, ref: ObjRef, *, verify: bool = False) -> Any:
        """What `put` was given: a read-only view of bytes or array, a text, or JSON's value.

        The memory stays mapped as long as the view is used. `verify` reads it all once more and
        compares the digest; copies from other hosts are always compared.

        Raises:
            ObjectError: it is gone, out of reach, or damaged.
        """

    @abstractmethod
    async def lookup(self, object_id: str) -> ObjRef | None:
        """The reference of an object of this host, or None where there is none (any more)."""


class Context(ABC):
    """One request, as its handler sees it. Valid until the handler ends."""

    request_id: str
    """`<origin>/<incarnation>/<n>`: the name in traces and logs."""
    capability: str
    """What is wanted now; where the request was handed up the ladder, not what it began as."""
    attributes: Mapping[str, str]
    """What the request asked of its replica, such as `{"model": "x"}`."""
    priority: int
    """Lower goes first."""
    depth: int
    """How many handlers stand between the client and this request; 0: a client asked."""
    log: logging.LoggerAdapter[logging.Logger]
    """Writes to the worker's log, with the request's id. Events never carry what is logged here."""
    objects: Objects
    """The object plane."""

    @property
    @abstractmethod
    def cancelled(self) -> bool:
        """Whether nobody wants the answer any more. Async handlers get `CancelledError` where they
        wait; plain functions, which run in threads, look here."""

    @property
    @abstractmethod
    def remaining_s(self) -> float | None:
        """Seconds until the deadline (0 when it has passed); None: there is none."""

    @abstractmethod
    async def call(
        self,
        capability: str,
        payload: Any = None,
        *,
        result: Any = Any,
        attributes: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        priority: int | None = None,
    ) -> Any:
        """Ask for another capability, through the scheduler, and wait for the whole answer.

        A handler's answer comes as `result` (any type that requests may have); a generator's as the
        list of what it yielded. An engine takes a text, a list of messages, or a mapping
        (`docs/handlers.md`) and answers `{"text", "tokens", "finish"}` or `{"embedding"}`. Deadline
        and priority are this request's own, unless they are made stricter.

        Raises:
            CallError: it ended otherwise than completed; `code` says how.
            InvalidRequestError: the payload cannot be sent, or the answer is no `result`.
        """

    @abstractmethod
    def stream(
        self,
        capability: str,
        payload: Any = None,
        *,
        item: Any = Any,
        attributes: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        priority: int | None = None,
    ) -> AsyncIterator[Any]:
        """The same, piece by piece as they come: a generator's items, or an engine's
        `{"text", "tokens"}`. Leaving the loop early cancels the call.

        Raises:
            CallError: as `call`, maybe after some pieces.
        """

    @abstractmethod
    def wait(self, awaitable: Awaitable[T]) -> T:
        """For plain functions, which run in threads: wait for one of the coroutines above."""
