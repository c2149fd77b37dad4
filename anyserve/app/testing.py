"""Try handlers without a cluster: `await rerank(TestContext({"embedding": fake}), query)`.

`docs/handlers.md` shows a test that does.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from anyserve.app import typed
from anyserve.app.context import Context, Objects
from anyserve.core.objects import ObjRef
from anyserve.errors import CallError, ObjectError

T = TypeVar("T")
Answer = Callable[[Any], Any]


class TestObjects(Objects):
    """Objects in a dictionary: as they were put, without bounds."""

    __test__ = False  # for pytest, which collects what is called Test

    def __init__(self) -> None:
        self._kept: dict[str, tuple[ObjRef, Any]] = {}

    async def put(
        self, value: Any, *, content_type: str | None = None, ttl_s: float | None = None
    ) -> ObjRef:
        """See `Objects`."""
        now_ms = time.time_ns() // 1_000_000
        size = getattr(value, "nbytes", None) or len(value if isinstance(value, bytes) else b"")
        ref = ObjRef(
            id=secrets.token_hex(16),
            size=size,
            digest="",
            content_type=content_type or "application/octet-stream",
            created_ms=now_ms,
            expires_ms=now_ms + round(1000 * (600 if ttl_s is None else ttl_s)),
        )
        self._kept[ref.id] = (ref, value)
        return ref

    async def get(self, ref: ObjRef, *, verify: bool = False) -> Any:  # noqa: ARG002
        """See `Objects`."""
        if ref.id not in self._kept:
            raise ObjectError(f"the object {ref.id} is gone", code="object_gone")
        return self._kept[ref.id][1]

    async def lookup(self, object_id: str) -> ObjRef | None:
        """See `Objects`."""
        found = self._kept.get(object_id)
        return None if found is None else found[0]


class TestContext(Context):
    """A context whose calls are answered by functions, one for each capability.

    A function gets the payload as the callee would: after a way through JSON. What it returns comes
    back the same way; what it raises is raised. It may be async, and for `stream` it returns a
    list. A capability without a function is an `unknown_capability`. `calls` keeps what was asked.
    """

    __test__ = False

    def __init__(
        self,
        answers: Mapping[str, Answer] | None = None,
        *,
        capability: str = "test",
        attributes: Mapping[str, str] | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self.request_id = "test/1/1"
        self.capability = capability
        self.attributes = attributes or {}
        self.priority = 0
        self.depth = 0
        self.log = logging.LoggerAdapter(logging.getLogger("anyserve.handler"), {})
        self.objects = TestObjects()
        self.calls: list[tuple[str, Any]] = []
        self.is_cancelled = False
        """Set it to see what a handler does then."""
        self._answers = answers or {}
        self._end_s = None if deadline_s is None else time.monotonic() + deadline_s

    @property
    def cancelled(self) -> bool:
        """See `Context`."""
        return self.is_cancelled

    @property
    def remaining_s(self) -> float | None:
        """See `Context`."""
        return None if self._end_s is None else max(0.0, self._end_s - time.monotonic())

    async def call(
        self, capability: str, payload: Any = None, *, result: Any = Any, **_options: Any
    ) -> Any:
        """See `Context`."""
        return typed.decode(typed.encode(await self._ask(capability, payload)), result)

    async def stream(
        self, capability: str, payload: Any = None, *, item: Any = Any, **_options: Any
    ) -> AsyncIterator[Any]:
        """See `Context`."""
        for one in await self._ask(capability, payload):
            yield typed.decode(typed.encode(one), item)

    async def _ask(self, capability: str, payload: Any) -> Any:
        answer = self._answers.get(capability)
        sent = typed.decode(typed.encode(payload), Any)
        self.calls.append((capability, sent))
        if answer is None:
            message = f"this test has no answer for {capability}"
            raise CallError(message, code="unknown_capability")
        given = answer(sent)
        return await given if inspect.isawaitable(given) else given

    def wait(self, awaitable: Awaitable[T]) -> T:
        """See `Context`; for handlers that are plain functions, called outside of any loop."""

        async def waited() -> T:
            return await awaitable

        return asyncio.run(waited())
