"""`OriginClient`: offer requests to a cluster and get their tokens and outcomes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from anyserve.core.effects import Deliver, Effect, Finish, Outcome
from anyserve.core.events import AnyEvent, Envelope
from anyserve.core.inputs import BusUp, Cancelled, Enough, Offered
from anyserve.core.messages import (
    Body,
    Code,
    Deadline,
    Frame,
    Gone,
    OriginInbound,
    Request,
)
from anyserve.core.objects import ObjRef
from anyserve.core.order import MS
from anyserve.core.origin import Origin
from anyserve.core.spec import ClusterSpec
from anyserve.errors import StartError, UsageError
from anyserve.runtime.bus.address import BrokerAddress, Credential, Role
from anyserve.runtime.bus.base import Will
from anyserve.runtime.driver import Driver
from anyserve.runtime.engines.base import Sampling, Task
from anyserve.runtime.wire import Topics, encode

SCHEDULER_S: Final = 10.0
"""How long `start` waits to hear of a scheduler."""
POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A request before it has an id.

    `entry` is `scheduler` or a replica's id. `deadline_ms` counts from now. `intended_ns` is when
    it should have been offered, on this host's monotonic clock; None: now.

    For a handler (task `handle`): `payload` is JSON, or `payload_ref` the object that holds it;
    `parent` and `depth` are set where another handler asks.
    """

    capability: str
    prompt_ids: list[int] = field(default_factory=list)
    max_tokens: int = 16
    task: Task = Task.GENERATE
    sampling: Sampling = field(default_factory=Sampling)
    attributes: Mapping[str, str] = field(default_factory=dict)
    entry: str = "scheduler"
    priority: int = 0
    deadline_ms: int | None = None
    affinity: str | None = None
    intended_ns: int | None = None
    stream: str = ""
    phase: str = ""
    payload: bytes = b"null"
    payload_ref: ObjRef | None = None
    parent: str = ""
    depth: int = 0


class Handle:
    """One offered request: what has arrived of it, and its outcome.

    `tokens` holds the token ids per choice. Iterate to get the frames as they come, or call
    `batch` to get all that came since; await `outcome` for how it ended. One reader at a time.
    """

    def __init__(
        self,
        request_id: str,
        *,
        streamed: bool,
        unread_limit: int | None = None,
        on_overrun: Callable[[str], None] | None = None,
    ) -> None:
        self.id = request_id
        self.tokens: dict[int, list[int]] = {}
        self.data: list[msgspec.Raw] = []
        """What came beside tokens: log probabilities, an embedding (`AnswerData` as JSON)."""
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.first: Frame | None = None
        """The first frame of the attempt that serves, once one has come: by whom, and as what."""
        self.overrun = False
        """Whether more than `unread_limit` frames lay unread: its reader is too slow."""
        self._streamed = streamed
        self._unread_limit = unread_limit
        self._on_overrun = on_overrun
        self._frames: deque[Frame] = deque()
        self._reader: asyncio.Future[None] | None = None

    @property
    def unread(self) -> int:
        """Frames that came and were not read yet."""
        return len(self._frames)

    def take(self, frame: Frame) -> None:
        """Tokens arrived (called by the client)."""
        self.tokens.setdefault(frame.choice, []).extend(frame.tokens)
        if frame.capability:
            self.first = frame
        if frame.has_data:
            self.data.append(frame.data)
        if self._streamed:
            self._frames.append(frame)
            self._wake()
            self._bound()

    def end(self, outcome: Outcome) -> None:
        """It is over (called by the client)."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)
        self._wake()

    async def batch(self) -> list[Frame]:
        """All frames that came since the last call; waits for one. Empty: it is over.

        Raises:
            UsageError: the request was offered without streaming.
        """
        await self._arrival()
        frames = list(self._frames)
        self._frames.clear()
        return frames

    async def __aiter__(self) -> AsyncIterator[Frame]:
        while await self._arrival():
            yield self._frames.popleft()

    async def _arrival(self) -> bool:
        """Whether there is a frame to read, once that is known."""
        if not self._streamed:
            message = "this request was offered without streaming"
            raise UsageError(message, code="not_streamed")
        while not self._frames and not self.outcome.done():
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return bool(self._frames)

    def _bound(self) -> None:
        limit = self._unread_limit
        if limit is None or self.overrun or len(self._frames) <= limit:
            return
        self.overrun = True
        if self._on_overrun is not None:
            # Not now: we are inside the effects of the message that brought the frame.
            asyncio.get_running_loop().call_soon(self._on_overrun, self.id)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class OriginClient:
    """One origin: its connection, its machine, and the handles of its open requests.

    Args:
        address, credential, prefix: the broker, and who we are there.
        name: id of this origin in topics; unique in the cluster.
        cluster: the rules that all obey.
        incarnation, boot: of this process.
        tee: gets every event envelope as it happens, for the origin's own log.
    """

    def __init__(
        self,
        *,
        address: BrokerAddress,
        credential: Credential | None,
        prefix: str,
        name: str,
        cluster: ClusterSpec,
        incarnation: int,
        boot: str,
        tee: Callable[[Envelope], None] | None = None,
    ) -> None:
        self.name = name
        self._lifetime_ms = cluster.request_lifetime_ms
        self._boot = boot
        self.incarnation = incarnation
        self._machine = Origin(name, cluster, incarnation=incarnation, boot=boot)
        self._handles: dict[str, Handle] = {}
        topics = Topics(prefix)
        self._driver = Driver(
            role=Role.ORIGIN,
            name=name,
            inbound=OriginInbound,
            perform=self._perform,
            address=address,
            credential=credential,
            prefix=prefix,
            incarnation=incarnation,
            boot=boot,
            will=Will(topics.gone("origin", name), self._will),
            tee=tee,
        )

    def _will(self, connection: int) -> bytes:
        gone = Gone(source=self.name, incarnation=self.incarnation, connection=connection)
        return b"[" + encode(gone) + b"]"

    async def start(self, *, scheduler_s: float = SCHEDULER_S) -> None:
        """Connect, and wait until a scheduler is heard of.

        Raises:
            StartError: no broker, no permission, or no scheduler within `scheduler_s`.
        """
        driver = self._driver
        await driver.connect()
        driver.run(self._machine, [])
        driver.feed(BusUp(connection=driver.bus.connection))
        filters = (f"origin/{self.name}/in", "sched/state")
        await driver.subscribe([(driver.topics.any(each), 1) for each in filters])
        end_s = time.monotonic() + scheduler_s
        while not self._machine.epoch:
            if time.monotonic() > end_s:
                raise StartError(
                    f"no scheduler was heard of within {scheduler_s:g} s",
                    code="no_scheduler",
                    hint="is the cluster up? `anyserve status` shows it",
                )
            await asyncio.sleep(POLL_S)

    @property
    def connected(self) -> bool:
        """Whether messages reach the broker, and a scheduler has been heard of."""
        return self._driver.bus.connected and self._machine.epoch > 0

    @property
    def open_requests(self) -> int:
        """Requests without an outcome."""
        return self._machine.open_requests

    def offer(
        self, draft: Draft, *, streamed: bool = False, unread_limit: int | None = None
    ) -> Handle:
        """Offer a request now. One with more than `unread_limit` unread frames is cancelled."""
        now = time.monotonic_ns()
        handle = Handle(
            self._machine.next_id(),
            streamed=streamed,
            unread_limit=unread_limit,
            on_overrun=self.cancel,
        )
        self._handles[handle.id] = handle
        # What a handler has said cannot be said again by another one.
        plain = draft.task is not Task.HANDLE and draft.sampling.guide is None
        resumable = draft.sampling.n == 1 and plain
        self._driver.feed(
            Offered(
                request=self._request(handle.id, draft, now),
                entry=draft.entry,
                intended_ns=draft.intended_ns if draft.intended_ns is not None else now,
                stream=draft.stream,
                phase=draft.phase,
                resumable=resumable,
                choices=draft.sampling.n,
            )
        )
        return handle

    def _request(self, request_id: str, draft: Draft, now: int) -> Request:
        body = Body(
            prompt_ids=draft.prompt_ids,
            task=draft.task.value,
            sampling=msgspec.Raw(encode(draft.sampling)),
            payload=msgspec.Raw(draft.payload),
            payload_ref=draft.payload_ref,
        )
        deadline = None
        if draft.deadline_ms is not None:
            at_ns = now + draft.deadline_ms * MS
            deadline = Deadline(boot=self._boot, at_ns=at_ns, left_ms=draft.deadline_ms)
        return Request(
            id=request_id,
            asked=draft.capability,
            capability=draft.capability,
            prompt_tokens=len(draft.prompt_ids),
            max_tokens=draft.max_tokens if draft.task is Task.GENERATE else 0,
            offered_ns=now,
            boot=self._boot,
            lifetime_ms=self._lifetime_ms,
            attributes=draft.attributes,
            priority=draft.priority,
            deadline=deadline,
            affinity=draft.affinity,
            parent=draft.parent,
            depth=draft.depth,
            body=msgspec.Raw(encode(body)),
        )

    def cancel(self, request_id: str, code: Code = Code.CLIENT_CANCELLED) -> None:
        """Give a request up; its outcome follows at once."""
        self._driver.feed(Cancelled(id=request_id, code=code))

    def enough(self, request_id: str) -> None:
        """The client has all it wanted of a request: completed, and the engine may stop."""
        self._driver.feed(Enough(id=request_id))

    def cancel_all(self, code: Code = Code.SHUTDOWN) -> None:
        """Give up every open request."""
        for request_id in self._machine.pending_ids():
            self.cancel(request_id, code)

    def emit(self, event: AnyEvent, *, t: int | None = None) -> None:
        """Say an event as this origin."""
        self._driver.events.emit(event, t=t)

    async def close(self) -> None:
        """Cancel what is open, send what waits, and disconnect."""
        self.cancel_all()
        await self._driver.close()

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Deliver):
            self._handles[effect.id].take(effect.frame)
        elif isinstance(effect, Finish):
            self._handles.pop(effect.id).end(effect.outcome)
