"""The context that a worker gives to handlers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from anyserve.app.context import Context, Objects
from anyserve.runtime.handlers.calls import Answer, CallBook
from anyserve.runtime.handlers.words import Handle

T = TypeVar("T")
_LOG = logging.getLogger("anyserve.handler")


class RequestLog(logging.LoggerAdapter[logging.Logger]):
    """Puts the request's id before every line."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        """See `logging.LoggerAdapter`."""
        return f"{(self.extra or {}).get('request')} {msg}", kwargs


class WorkerContext(Context):
    """One request in a worker. Its calls are made by the replica's process, as an origin."""

    def __init__(
        self,
        handle: Handle,
        calls: CallBook,
        objects: Objects,
        loop: asyncio.AbstractEventLoop,
        thread: int,
    ) -> None:
        self.request_id = handle.request_id
        self.capability = handle.capability
        self.attributes = handle.attributes
        self.priority = handle.priority
        self.depth = handle.depth
        self.log = RequestLog(_LOG, {"request": handle.request_id})
        self.objects = objects
        self._key = handle.key
        self._deadline_ns = handle.deadline_ns
        self._calls = calls
        self._loop = loop
        self._thread = thread
        self._waits: set[concurrent.futures.Future[Any]] = set()
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """See `Context`."""
        return self._cancelled

    @property
    def remaining_s(self) -> float | None:
        """See `Context`."""
        if self._deadline_ns is None:
            return None
        return max(0.0, (self._deadline_ns - time.monotonic_ns()) / 1e9)

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
        """See `Context`."""
        answer = await self._begin(capability, payload, attributes, timeout_s, priority)
        async with aclosing(answer):
            return await answer.whole(result)

    async def stream(
        self,
        capability: str,
        payload: Any = None,
        *,
        item: Any = Any,
        attributes: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        priority: int | None = None,
    ) -> AsyncIterator[Any]:
        """See `Context`."""
        answer = await self._begin(
            capability, payload, attributes, timeout_s, priority, streamed=True
        )
        async with aclosing(answer):
            async for piece in answer.pieces(item):
                yield piece

    async def _begin(
        self,
        capability: str,
        payload: Any,
        attributes: Mapping[str, str] | None,
        timeout_s: float | None,
        priority: int | None,
        *,
        streamed: bool = False,
    ) -> Answer:
        return await self._calls.begin(
            self._key,
            capability,
            payload,
            attributes=attributes or {},
            timeout_ms=None if timeout_s is None else max(1, round(timeout_s * 1000)),
            priority=priority,
            streamed=streamed,
        )

    def wait(self, awaitable: Awaitable[T]) -> T:
        """See `Context`.

        Raises:
            RuntimeError: in an async handler, where waiting so would block all of them.
        """
        if threading.get_ident() == self._thread:
            raise RuntimeError("ctx.wait is for plain functions; write `await` here")
        waiting = asyncio.run_coroutine_threadsafe(_as_coroutine(awaitable), self._loop)
        self._waits.add(waiting)
        try:
            if self._cancelled:
                waiting.cancel()
            return waiting.result()
        finally:
            self._waits.discard(waiting)

    def cancel(self) -> None:
        """Nobody wants the answer any more (called in the loop)."""
        self._cancelled = True
        for waiting in list(self._waits):
            waiting.cancel()

    def close(self) -> None:
        """The handler has ended: whatever it still had asked for is given up."""
        self._calls.give_up(self._key)


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable
