"""Runs handlers in a worker: an event loop in a thread of its own, beside the engine's step loop.

One request is one task. What it gives is sent as it comes, all of one turn of the loop together.
An exception ends its own request, with type and message for the client and the traceback in the
log. The main thread's engine never waits for handlers, nor they for it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, Final

import msgspec

from anyserve.app import typed
from anyserve.app.context import Objects
from anyserve.core.messages import Code
from anyserve.errors import InvalidRequestError, ObjectError
from anyserve.runtime.handlers.calls import CallBook
from anyserve.runtime.handlers.context import WorkerContext
from anyserve.runtime.handlers.load import handlers_for, load_app
from anyserve.runtime.handlers.serving import Service, make_services, run_service
from anyserve.runtime.handlers.words import (
    AppConfig,
    CallEnded,
    CallPiece,
    Handle,
    HandlerCommand,
    Output,
    Outputs,
    Payload,
)
from anyserve.runtime.objects.plane import ObjectPlane

_LOG = logging.getLogger(__name__)
_BLOCKED_NS: Final = 1_000_000_000
"""A handler that keeps the loop this long is named in the log, with the line it is at."""
_FORESEEN: Final = (Exception, SystemExit)
"""What a user's code may raise and still end one request only."""


class HandlerHost:
    """The handlers of one worker. `start` it, then `put` commands from any thread.

    Args:
        config: which app, and what its handlers may use.
        send: takes reports for the replica; may be called from any thread.
        cancelled: takes the keys of attempts that ended because they were cancelled.
    """

    def __init__(
        self,
        config: AppConfig,
        send: Callable[[msgspec.Struct], None],
        cancelled: Callable[[list[str]], None],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._config = config
        self._send = send
        self._report_cancelled = cancelled
        self._clock_ns = clock_ns
        self._plane: ObjectPlane | None = None
        self._services: dict[str, Service] = {}
        self._keys: set[str] = set()
        self._running: dict[str, tuple[asyncio.Task[None], WorkerContext]] = {}
        self._outputs: list[Output] = []
        self._slow_factor = 1.0
        self._probe_ns: int | None = None
        self._told_blocked = False
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._calls = CallBook(send, None)
        self._threads = ThreadPoolExecutor(config.concurrency, thread_name_prefix="handler")
        self._thread = threading.Thread(target=self._run_loop, name="handlers", daemon=True)

    # --- called by the worker's threads ---------------------------------------------------------

    def start(self) -> None:
        """Import the app, start its loop and its workers; blocks until all are ready.

        Raises:
            AnyServeError: the app cannot be used.
            Exception: whatever an `on_start` raised.
        """
        config = self._config
        sys.dont_write_bytecode |= config.reloads
        app, origin = load_app(config.name, config.directory)
        handlers = handlers_for(app, config.name, config.serves or app.handlers)
        if config.objects is not None:
            self._plane = ObjectPlane.of(config.objects)
            self._calls = CallBook(self._send, self._plane)
        self._own_loop = asyncio.new_event_loop()
        self._thread.start()
        _LOG.info("%s from %s serves %s", config.name, origin, ", ".join(handlers))
        self._services = self._in_loop(make_services(handlers, self._threads))

    def stop(self) -> None:
        """Let running handlers end for a while, cancel the rest, call every `on_stop`."""
        self._in_loop(self._wind_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=1.0)
        self._threads.shutdown(wait=False, cancel_futures=True)
        if not self._thread.is_alive():
            self._loop.close()

    def put(self, command: HandlerCommand) -> None:
        """Take a command."""
        if isinstance(command, Handle):
            self._keys.add(command.key)
        self._loop.call_soon_threadsafe(self._obey, command)

    def cancel(self, key: str) -> bool:
        """Cancel an attempt; whether it is here."""
        if key not in self._keys:
            return False
        self._loop.call_soon_threadsafe(self._cancel, key)
        return True

    def slow(self, factor: float) -> None:
        """Let handlers take `factor` times as long."""
        self._slow_factor = max(1.0, factor)

    @property
    def held(self) -> int:
        """Requests that are here."""
        return len(self._keys)

    def blocked_since_ns(self) -> int | None:
        """Since when the loop has not come round, if it has not: some handler keeps it.

        To be asked regularly: each question that finds the loop well leaves it a new one.
        """
        since = self._probe_ns
        if since is None:
            self._probe_ns = self._clock_ns()
            self._told_blocked = False
            self._loop.call_soon_threadsafe(self._came_round)
            return None
        if self._clock_ns() - since < _BLOCKED_NS:
            return None
        self._tell_blocked(since)
        return since

    # --- in the loop ----------------------------------------------------------------------------

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        assert self._own_loop is not None, "not started"
        return self._own_loop

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _in_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _came_round(self) -> None:
        self._probe_ns = None

    def _obey(self, command: HandlerCommand) -> None:
        match command:
            case Handle():
                self._begin(command)
            case CallPiece() | CallEnded():
                self._calls.take(command)

    def _begin(self, handle: Handle) -> None:
        objects: Objects = _NoObjects() if self._plane is None else self._plane
        thread = self._thread.ident or 0
        context = WorkerContext(handle, self._calls, objects, self._loop, thread)
        task = self._loop.create_task(self._serve(handle, context), name=handle.key)
        self._running[handle.key] = (task, context)
        # Not within the task: one that is cancelled before its first step never runs at all.
        task.add_done_callback(lambda ended: self._ended(handle.key, context, ended))

    def _ended(self, key: str, context: WorkerContext, task: asyncio.Task[None]) -> None:
        context.close()
        self._running.pop(key, None)
        self._keys.discard(key)
        if task.cancelled():
            self._flush()
            self._report_cancelled([key])

    def _cancel(self, key: str) -> None:
        found = self._running.get(key)
        if found is not None:
            task, context = found
            context.cancel()
            task.cancel()

    async def _serve(self, handle: Handle, context: WorkerContext) -> None:
        """One request's boundary: whatever happens in it ends here."""
        try:
            await self._answer(handle, context)
        except asyncio.CancelledError:
            if context.cancelled:
                raise
            self._fail(handle, "CancelledError: something that it waited for was cancelled")
        except InvalidRequestError as error:
            place = f" (at {error.pointer})" if error.pointer else ""
            self._fail(handle, f"{error.message}{place}", Code.INVALID.value)
        except _FORESEEN as error:
            context.log.exception("the handler of %s failed", handle.capability)
            self._fail(handle, f"{type(error).__name__}: {error}".rstrip(": "))

    async def _answer(self, handle: Handle, context: WorkerContext) -> None:
        service = self._services[handle.capability]
        shape = service.shape
        began_ns = turn_ns = self._clock_ns()
        payload = await self._read(handle.payload, shape.payload_type) if shape.payload else None
        item = shape.kind.streams
        async with aclosing(run_service(service, context, payload, self._threads)) as values:
            async for value in values:
                typed.check_result(value, shape.result_type)
                sent = await self._pack(value)
                await self._pace(turn_ns)
                turn_ns = self._clock_ns()
                self._say(
                    Output(
                        key=handle.key, payload=sent, item=item, done=not item, began_ns=began_ns
                    )
                )
                began_ns = 0
        if item:
            self._say(Output(key=handle.key, done=True, began_ns=began_ns))

    async def _read(self, payload: Payload, wanted: Any) -> Any:
        data = payload.json if self._plane is None else await self._plane.expand(payload)
        return typed.decode(data, wanted)

    async def _pack(self, value: Any) -> Payload:
        try:
            payload = Payload(typed.encode(value))
        except InvalidRequestError as error:  # the handler's fault, not the client's
            raise TypeError(f"{error.message} ({error.hint})") from None
        return payload if self._plane is None else await self._plane.shrink(payload)

    async def _pace(self, since_ns: int) -> None:
        """The fault `slow`: what took t takes factor x t."""
        if self._slow_factor > 1.0:
            await asyncio.sleep((self._clock_ns() - since_ns) / 1e9 * (self._slow_factor - 1.0))

    def _fail(self, handle: Handle, message: str, code: str = Code.HANDLER_ERROR.value) -> None:
        self._say(Output(key=handle.key, done=True, error=message, code=code))

    def _say(self, output: Output) -> None:
        if not self._outputs:
            self._loop.call_soon(self._flush)
        self._outputs.append(output)

    def _flush(self) -> None:
        if self._outputs:
            outputs, self._outputs = self._outputs, []
            self._send(Outputs(outputs))

    async def _wind_down(self) -> None:
        tasks = [task for task, _ in self._running.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=self._config.stop_grace_s)
        left = list(self._running)
        for key in left:
            self._cancel(key)
        if left:
            _LOG.warning("%d handlers were still running and are cancelled", len(left))
            await asyncio.wait([task for task, _ in self._running.values()], timeout=0.5)
            await asyncio.sleep(0)  # let their ends be told
        for service in self._services.values():
            try:
                await service.stop()
            except _FORESEEN:
                _LOG.exception("on_stop of %s", service.name)
        self._flush()

    def _tell_blocked(self, since_ns: int) -> None:
        if self._told_blocked:
            return
        self._told_blocked = True
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - the only way
        stack = "".join(traceback.format_stack(frame)[-3:]) if frame is not None else ""
        _LOG.warning(
            "a handler has kept the event loop for %.1f s, and all others with it; plain functions "
            "run in threads, or await asyncio.to_thread(...)\n%s",
            (self._clock_ns() - since_ns) / 1e9,
            stack,
        )


class _NoObjects(Objects):
    """Where a replica was started without an object plane."""

    async def put(self, value: Any, **_options: Any) -> Any:  # noqa: ARG002 - as `Objects` says
        """See `Objects`."""
        raise _no_plane()

    async def get(self, ref: Any, *, verify: bool = False) -> Any:  # noqa: ARG002
        """See `Objects`."""
        raise _no_plane()

    async def lookup(self, object_id: str) -> None:
        """See `Objects`."""


def _no_plane() -> ObjectError:
    return ObjectError("this replica has no object plane", code="objects_full")
