"""The calls of a replica's handlers. Its process makes them, as an origin with its own connection.

A handler says what it wants over the worker's socket; here it becomes a request like any client's:
submitted to the scheduler, with what is left of the deadline, and cancelled when nobody waits for
it any more. So a call takes the way of every request: none goes from replica to replica.

Two things could wait for each other for ever. A chain of calls is bounded by `call_depth`. And if
only this replica offers what its own handlers call, one slot is kept from such calls: the call that
would leave none is refused (`call_deadlock`). Every call ends with its deadline at the latest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from anyserve.core.capability import Ladder
from anyserve.core.effects import Outcome, OutcomeKind, StartWork
from anyserve.core.messages import Request
from anyserve.core.order import MS, deadline_ns
from anyserve.core.spec import ClusterSpec, EngineSpec, ReplicaSpec
from anyserve.errors import AnyServeError, CallError
from anyserve.runtime.engines.base import Task
from anyserve.runtime.handlers.words import Call, CallEnded, CallPiece, Payload
from anyserve.runtime.models.codec import load_tokenizer
from anyserve.runtime.models.tokenizers import TextTokenizer
from anyserve.runtime.objects.plane import ObjectPlane
from anyserve.runtime.origin import Draft, Handle, OriginClient
from anyserve.runtime.origin.asking import (
    EngineAnswer,
    engine_draft,
    engine_of,
    handler_pieces,
    read_ask,
)
from anyserve.runtime.replica.translate import attempt_key

_LOG = logging.getLogger(__name__)


class Caller:
    """Makes the calls of one replica's handlers.

    Args:
        spec, cluster: the replica, and the rules that all obey.
        origin: the connection by which calls enter.
        boot: names the host life whose monotonic clock is used.
        answer: takes what goes back to the worker.
        plane: reads payloads that travelled as references; None where there is none.
        now_ns: the monotonic clock.
    """

    def __init__(
        self,
        spec: ReplicaSpec,
        cluster: ClusterSpec,
        origin: OriginClient,
        *,
        boot: str,
        answer: Callable[[CallPiece | CallEnded], None],
        plane: ObjectPlane | None,
        now_ns: Callable[[], int],
    ) -> None:
        self._spec = spec
        self._cluster = cluster
        self._ladder = Ladder(cluster.ladder.upgrades)
        self._origin = origin
        self._boot = boot
        self._answer = answer
        self._plane = plane
        self._now_ns = now_ns
        self._parents: dict[str, Request] = {}
        self._deadlines: dict[str, int | None] = {}
        self._tasks: dict[int, tuple[str, asyncio.Task[None]]] = {}
        self._self_calls: dict[int, str] = {}
        """Open calls that only this replica can serve -> the attempt that waits for them."""
        self._tokenizers: dict[str, TextTokenizer | None] = {}

    # --- attempts that may call ------------------------------------------------------------------

    def begin(self, work: StartWork) -> int | None:
        """An attempt is given to its handler; its deadline on this host's monotonic clock."""
        key = attempt_key(work.request.id, work.attempt)
        self._parents[key] = work.request
        self._deadlines[key] = deadline_ns(work.request, self._boot, self._now_ns())
        return self._deadlines[key]

    def end(self, key: str) -> None:
        """The attempt is over: its calls are cancelled."""
        self._parents.pop(key, None)
        self._deadlines.pop(key, None)
        for of, task in list(self._tasks.values()):
            if of == key:
                task.cancel()

    def end_all(self) -> None:
        """The worker is gone, with all that waited for answers."""
        for key in list(self._parents):
            self.end(key)

    # --- calls -----------------------------------------------------------------------------------

    def make(self, call: Call) -> None:
        """A handler asks for something."""
        task = asyncio.get_running_loop().create_task(self._serve(call), name=f"call-{call.call}")
        self._tasks[call.call] = (call.key, task)
        task.add_done_callback(lambda _: self._done(call.call))

    def cancel(self, number: int) -> None:
        """Nobody waits for this call any more."""
        found = self._tasks.get(number)
        if found is not None:
            found[1].cancel()

    def _done(self, number: int) -> None:
        self._tasks.pop(number, None)
        self._self_calls.pop(number, None)

    async def _serve(self, call: Call) -> None:
        try:
            ended = await self._call(call)
        except CallError as error:
            ended = CallEnded(call.call, error.code, error.message)
        except AnyServeError as error:
            hint = f" ({error.hint})" if error.hint else ""
            ended = CallEnded(call.call, error.code, f"{error.message}{hint}")
        except Exception as error:  # noqa: BLE001 - a call's boundary: its handler hears of it
            _LOG.exception("call %d of %s", call.call, call.key)
            ended = CallEnded(call.call, "internal", f"{type(error).__name__}: {error}")
        self._answer(ended)

    async def _call(self, call: Call) -> CallEnded:
        parent = self._parents.get(call.key)
        if parent is None:
            raise CallError("the request that asks is over", code="client_cancelled")
        self._refuse_hopeless(call, parent)
        engine = engine_of(self._cluster, call.capability)
        draft = await self._draft(call, engine)
        handle = self._origin.offer(self._as_child(draft, call, parent), streamed=True)
        try:
            if engine is None:
                await self._pass_on(call, handle)
            else:
                await self._tell(call, handle, engine)
        except asyncio.CancelledError:
            self._origin.cancel(handle.id)
            raise
        return _ended(call, await handle.outcome)

    def _refuse_hopeless(self, call: Call, parent: Request) -> None:
        limit = self._cluster.call_depth
        if parent.depth >= limit:
            raise CallError(
                f"calls may nest {limit} deep, and {parent.id} is that deep already",
                code="call_depth",
            )
        if not self._only_here(call.capability):
            return
        waiting = {*self._self_calls.values(), call.key}
        if len(waiting) >= self._spec.concurrency:
            raise CallError(
                f"only {self._spec.id} offers {call.capability}, and all of its "
                f"{self._spec.concurrency} slots would wait for it",
                code="call_deadlock",
            )
        self._self_calls[call.call] = call.key

    def _only_here(self, capability: str) -> bool:
        """Whether the scenario knows of nobody but this replica that could serve a call."""
        rungs = set(self._ladder.rungs(capability))
        able = {
            replica.id
            for replica in self._cluster.replicas
            if any(offer.capability in rungs for offer in replica.offers)
        }
        return able == {self._spec.id}

    async def _draft(self, call: Call, engine: EngineSpec | None) -> Draft:
        if engine is None:
            return Draft(
                capability=call.capability,
                task=Task.HANDLE,
                payload=call.payload.json,
                payload_ref=call.payload.ref,
            )
        payload = call.payload
        data = payload.json if self._plane is None else await self._plane.expand(payload)
        ask = read_ask(data)
        tokenizer = await self._tokenizer(engine)
        # Long texts take a while, and this loop also passes on everybody's tokens.
        return await asyncio.to_thread(engine_draft, call.capability, engine, ask, tokenizer)

    def _as_child(self, draft: Draft, call: Call, parent: Request) -> Draft:
        """The draft with what it inherits: deadline, priority and trace."""
        left_ms = self._left_ms(call)
        return replace(
            draft,
            attributes=call.attributes,
            priority=parent.priority if call.priority is None else call.priority,
            deadline_ms=left_ms,
            parent=parent.id,
            depth=parent.depth + 1,
        )

    def _left_ms(self, call: Call) -> int | None:
        at_ns = self._deadlines.get(call.key)
        limits = [] if call.timeout_ms is None else [call.timeout_ms]
        if at_ns is not None:
            limits.append(max(1, (at_ns - self._now_ns()) // MS))
        return min(limits, default=None)

    async def _tokenizer(self, engine: EngineSpec) -> TextTokenizer | None:
        if engine.model is None:
            return None
        if engine.model not in self._tokenizers:
            self._tokenizers[engine.model] = await asyncio.to_thread(load_tokenizer, engine)
        return self._tokenizers[engine.model]

    async def _pass_on(self, call: Call, handle: Handle) -> None:
        """A handler's answer, as it is."""
        async for frame in handle:
            for piece in handler_pieces(frame):
                payload = Payload(bytes(piece.payload), piece.ref)
                self._answer(CallPiece(call.call, payload, piece.item))

    async def _tell(self, call: Call, handle: Handle, engine: EngineSpec) -> None:
        """An engine's answer, as JSON."""
        answer = EngineAnswer(await self._tokenizer(engine))
        async for frame in handle:
            for said in answer.take(frame):
                self._say_item(call, said)
        for said in answer.finish():
            self._say_item(call, said)
        outcome = await handle.outcome
        if not call.streamed and outcome.kind is OutcomeKind.COMPLETED:
            self._answer(CallPiece(call.call, Payload(answer.whole(outcome.finish))))

    def _say_item(self, call: Call, said: bytes) -> None:
        if call.streamed:
            self._answer(CallPiece(call.call, Payload(said), item=True))


def _ended(call: Call, outcome: Outcome) -> CallEnded:
    if outcome.kind is OutcomeKind.COMPLETED:
        return CallEnded(call.call)
    code = outcome.code.value if outcome.code is not None else outcome.kind.value
    message = outcome.message or f"the call was {outcome.kind.value}"
    return CallEnded(call.call, code, message, outcome.retry_after_ms)
