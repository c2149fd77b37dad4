"""`Front`: what all doors of an ingress share, over one `OriginClient`.

A door (HTTP, gRPC) reads its protocol, asks the front for a `Route`, makes a `Draft`, and holds the
`Call` until its answer has left. The front admits, counts, drains and puts failures into words.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Final, Protocol, Self

from anyserve.core.effects import Outcome, OutcomeKind
from anyserve.core.messages import Code, Frame
from anyserve.core.scheduler.rates import CompletionRate
from anyserve.core.spec import ClusterSpec, EngineSpec, IngressSpec
from anyserve.runtime.ingress.codecs import Codec, load_codec, no_tokenizer
from anyserve.runtime.ingress.directory import SCHEDULER, Directory, Route
from anyserve.runtime.ingress.meanings import RefusedError, refusal_of
from anyserve.runtime.objects.plane import ObjectPlane
from anyserve.runtime.origin import Draft, Handle, OriginClient

_ALL: Final = "all"
_DRAIN_POLL_S: Final = 0.05
MAX_PROMPT_TOKENS: Final = 1_000_000
"""A message that carries more would come near the broker's bound."""


class FrontState(Enum):
    """Where an ingress is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Served:
    """Who serves a request, as what, and how it got there."""

    request_id: str
    replica: str
    asked: str
    capability: str
    delegations: int

    @property
    def hops(self) -> int:
        """Assignments to a replica: the first, and one for each delegation."""
        return 1 + self.delegations


@dataclass(slots=True)
class Figures:
    """What an ingress has done so far. `ended` is by code, `completed` among them."""

    offered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Turned away at the door, by code."""
    ended: Counter[str] = field(default_factory=Counter)


class Door(Protocol):
    """One listening protocol of an ingress."""

    async def start(self) -> str:
        """Listen; returns the URL (or host:port) under which it is reached.

        Raises:
            StartError: it cannot listen there.
        """
        ...

    async def close(self) -> None:
        """Stop listening; what is still open is cut off."""
        ...


def no_metrics() -> str:
    """The exposition of a front to which nobody has given one."""
    return ""


class Front:
    """One ingress. `client` is its origin; `entry` is where requests go that name none.

    `exposition` is what `/metrics` says, in the text format of Prometheus; replace it.
    """

    def __init__(
        self,
        cluster: ClusterSpec,
        client: OriginClient,
        *,
        entry: str = SCHEDULER,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.cluster = cluster
        self.settings = cluster.ingress or IngressSpec()
        self.directory = Directory(cluster, entry=entry)
        self.client = client
        self.figures = Figures()
        self.exposition: Callable[[], str] = no_metrics
        self.objects: ObjectPlane | None = None
        """This host's part of the object plane, where the ingress has been told of it."""
        self._clock_ns = clock_ns
        self._rate = CompletionRate()
        self._codecs: dict[tuple[str, str | None], Codec | None] = {}
        self._names = 0
        self.created_s = int(time.time())
        """Wall clock of this start."""
        self._started = False
        self._draining = False

    @property
    def state(self) -> FrontState:
        """Starting until the cluster is there (also after its broker went away)."""
        if self._draining:
            return FrontState.DRAINING
        ready = self._started and self.client.connected
        return FrontState.READY if ready else FrontState.STARTING

    @property
    def open_requests(self) -> int:
        """Requests without an outcome."""
        return self.client.open_requests

    async def start(self) -> None:
        """Load the tokenizers of the cluster's models, and connect.

        Raises:
            AnyServeError: a model is not there, or no broker, permission or scheduler.
        """
        for engine in self.directory.engines:
            key = _codec_key(engine)
            if key not in self._codecs:
                self._codecs[key] = await asyncio.to_thread(load_codec, engine)
        await self.client.start()
        self._started = True

    def codec(self, route: Route, *, replica: str | None = None) -> Codec:
        """The tokenizer of a route's model, or of the model of the replica that serves.

        Raises:
            RefusedError: it is not on this machine.
        """
        engine = None if replica is None else self.directory.engine_of(replica)
        engine = engine or route.engine
        codec = None if engine is None else self._codecs.get(_codec_key(engine))
        if codec is None:
            raise no_tokenizer(route.model)
        return codec

    def offer(
        self, draft: Draft, *, streamed: bool = False, first_token_ms: int | None = None
    ) -> Call:
        """Offer a request. Without a first frame within `first_token_ms` it expires.

        Raises:
            RefusedError: this ingress drains, has as many open requests as it may, or the prompt is
                longer than a message may be.
        """
        if self._draining:
            text = "this ingress is draining; ask another one"
            raise RefusedError(text, code="draining", retry_after_ms=1_000)
        if self.open_requests >= self.settings.limits.open_requests:
            text = f"{self.open_requests} requests are open at this ingress already"
            wait_ms = self.retry_after_ms()
            raise RefusedError(text, code="ingress_full", retry_after_ms=wait_ms)
        if len(draft.prompt_ids) > MAX_PROMPT_TOKENS:
            text = f"{len(draft.prompt_ids)} prompt tokens; no request carries so many"
            raise RefusedError(text, code=Code.TOO_LONG.value)
        handle = self.client.offer(
            draft, streamed=streamed, unread_limit=self.settings.limits.unread_frames
        )
        self.figures.offered += 1
        handle.outcome.add_done_callback(self._note_outcome)
        return Call(self, draft, handle, first_token_ms)

    def next_name(self) -> str:
        """A name for an answer, which is made before its requests are offered; unique."""
        self._names += 1
        return f"{self.client.name}-{self.client.incarnation}-{self._names}"

    def note_refused(self, refusal: RefusedError) -> None:
        """Count what a door answered with an error, unless it was offered and so is counted."""
        if refusal.request_id is None:
            self.figures.refused[refusal.code] += 1

    def retry_after_ms(self) -> int:
        """When a retry may help: what is open here, at the rate at which requests end here."""
        return self._rate.wait_ms(_ALL, max(1, self.open_requests), self._clock_ns())

    def begin_drain(self) -> None:
        """Refuse new requests from now on; open ones go on."""
        self._draining = True

    async def drain(self, grace_s: float) -> bool:
        """Refuse new requests, and wait for the open ones; False where time was not enough."""
        self.begin_drain()
        end_s = time.monotonic() + grace_s
        while self.open_requests and time.monotonic() < end_s:  # noqa: ASYNC110 - core is pure
            await asyncio.sleep(_DRAIN_POLL_S)
        return not self.open_requests

    async def close(self) -> None:
        """Cancel what is open, and disconnect."""
        self._draining = True
        await self.client.close()

    def _note_outcome(self, ended: asyncio.Future[Outcome]) -> None:
        if ended.cancelled():
            return
        outcome = ended.result()
        code = outcome.code.value if outcome.code is not None else outcome.kind.value
        self.figures.ended[code] += 1
        if outcome.kind is OutcomeKind.COMPLETED:
            self._rate.completed(_ALL, self._clock_ns())


class Call:
    """One offered request. A context manager: leaving it early gives the request up.

    Read `batch` until it is empty (streamed calls), then `refusal` says whether all is well.
    """

    def __init__(
        self, front: Front, draft: Draft, handle: Handle, first_token_ms: int | None
    ) -> None:
        self.draft = draft
        self.handle = handle
        self._front = front
        self._late: asyncio.TimerHandle | None = None
        if first_token_ms is not None:
            loop = asyncio.get_running_loop()
            self._late = loop.call_later(first_token_ms / 1000, self._too_late)

    @property
    def id(self) -> str:
        """The request's id, as traces and logs know it."""
        return self.handle.id

    @property
    def over(self) -> bool:
        """Whether it has its outcome."""
        return self.handle.outcome.done()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._late is not None:
            self._late.cancel()
        if not self.over:
            self.cancel()

    async def batch(self) -> list[Frame]:
        """All frames that came since the last call, at least one; empty: it is over."""
        return await self.handle.batch()

    async def refusal(self) -> RefusedError | None:
        """Wait for its end; why it was not completed, None where it was."""
        outcome = await asyncio.shield(self.handle.outcome)
        if self.handle.overrun:
            text = "the stream was read too slowly"
            tokens = outcome.n_tokens
            return RefusedError(text, code="slow_client", n_tokens=tokens, request_id=self.id)
        wait_ms = self._front.retry_after_ms()
        return refusal_of(outcome, request_id=self.id, retry_after_ms=wait_ms)

    @property
    def outcome(self) -> Outcome:
        """How it ended; it must be over."""
        return self.handle.outcome.result()

    @property
    def served(self) -> Served | None:
        """Who serves it; None while nobody has said so."""
        asked, first = self.draft.capability, self.handle.first
        if first is not None:
            return Served(self.id, first.replica, asked, first.capability, first.delegations)
        if self.over and self.outcome.served_by is not None:
            end = self.outcome
            return Served(
                self.id, end.served_by or "", asked, end.capability or asked, end.delegations
            )
        return None

    def cancel(self, code: Code = Code.CLIENT_CANCELLED) -> None:
        """Give it up, wherever it is."""
        self._front.client.cancel(self.id, code)

    def enough(self) -> None:
        """The client has all it wanted: end it as completed."""
        self._front.client.enough(self.id)

    def _too_late(self) -> None:
        if not self.handle.tokens and not self.handle.data:
            self.cancel(Code.DEADLINE_EXCEEDED)


def _codec_key(engine: EngineSpec) -> tuple[str, str | None]:
    return ("vllm" if engine.kind == "vllm" else "imitated", engine.model)
