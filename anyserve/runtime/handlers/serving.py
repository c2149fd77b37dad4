"""One handler made ready to be called, whatever form its author gave it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from anyserve.app.app import Handler
from anyserve.app.context import Context
from anyserve.app.signature import Kind, Shape

_END: Final = object()


@dataclass(frozen=True, slots=True)
class Service:
    """What to call for a capability; `worker` is the object of a class, where there is one."""

    name: str
    shape: Shape
    function: Callable[..., Any]
    worker: Any = None

    def arguments(self, context: Context, payload: Any) -> dict[str, Any]:
        """As the function wants them."""
        wanted = ((self.shape.context, context), (self.shape.payload, payload))
        return {name: value for name, value in wanted if name}

    async def stop(self) -> None:
        """Call the `on_stop` of its class, if it has one."""
        await _call_hook(self.worker, "on_stop")


async def make_services(handlers: Mapping[str, Handler], threads: Executor) -> dict[str, Service]:
    """Make the workers and call each `on_start`; the services by capability.

    Raises:
        Exception: whatever a constructor or `on_start` raised.
    """
    loop = asyncio.get_running_loop()
    services: dict[str, Service] = {}
    for capability, handler in handlers.items():
        if handler.is_worker:
            worker = await loop.run_in_executor(threads, handler.target)
            await _call_hook(worker, "on_start", threads)
            services[capability] = Service(handler.name, handler.shape, worker.handle, worker)
        else:
            services[capability] = Service(handler.name, handler.shape, handler.target)
    return services


async def run_service(
    service: Service, context: Context, payload: Any, threads: Executor
) -> AsyncGenerator[Any, None]:
    """Everything that a handler gives: one result, or the items of a stream."""
    call = partial(service.function, **service.arguments(context, payload))
    match service.shape.kind:
        case Kind.ASYNC:
            yield await call()
        case Kind.ASYNC_STREAM:
            async with aclosing(call()) as items:
                async for item in items:
                    yield item
        case Kind.PLAIN:
            yield await _in_thread(threads, call)
        case Kind.PLAIN_STREAM:
            items = call()
            try:
                while (item := await _in_thread(threads, partial(next, items, _END))) is not _END:
                    yield item
            finally:
                await _in_thread(threads, items.close)


async def _in_thread(threads: Executor, call: Callable[[], Any]) -> Any:
    """Run it in a thread. Cancelled, this waits until the thread is done: it holds the slot."""
    running = asyncio.get_running_loop().run_in_executor(threads, call)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # nobody will ask
        raise


async def _call_hook(worker: Any, name: str, threads: Executor | None = None) -> None:
    hook = getattr(worker, name, None)
    if hook is None:
        return
    if inspect.iscoroutinefunction(hook):
        await hook()
    elif threads is not None:
        await asyncio.get_running_loop().run_in_executor(threads, hook)
    else:
        hook()
