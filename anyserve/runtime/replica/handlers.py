"""What a replica whose worker runs an app has besides: its handlers' requests, and their calls."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Final

from anyserve.core.effects import StartWork
from anyserve.core.inputs import Stepped
from anyserve.core.spec import ReplicaSpec
from anyserve.runtime.handlers.words import AppConfig, Call, CallEnded, CallPiece, Output
from anyserve.runtime.objects.plane import ObjectPlane
from anyserve.runtime.origin import OriginClient
from anyserve.runtime.process import NodeConfig
from anyserve.runtime.replica.calls import Caller
from anyserve.runtime.replica.translate import handler_request, output_deltas
from anyserve.runtime.replica.worker_keeper import WorkerKeeper

_SUFFIX: Final = "-calls"
SCHEDULER_S: Final = 30.0
"""A scheduler that is being restarted is waited for, rather than to be restarted oneself."""


class Handlers:
    """The handlers of one replica, as its process sees them."""

    def __init__(self, spec: ReplicaSpec, config: NodeConfig) -> None:
        assert spec.app is not None
        self._serves = frozenset(spec.app.serves)
        self.app = AppConfig(
            name=spec.app.name,
            directory=str(config.extra.get("scenario_dir", "")),
            serves=spec.app.serves,
            concurrency=spec.concurrency,
            objects=config.objects,
            reloads=bool(config.extra.get("reload")),
        )
        self._origin = OriginClient(
            address=config.broker,
            credential=config.origin_credential,
            prefix=config.prefix,
            name=calls_name(spec.id),
            cluster=config.cluster,
            incarnation=config.incarnation,
            boot=config.boot_id,
        )
        self._keeper: WorkerKeeper | None = None
        self._feed: Callable[[Stepped], None] | None = None
        self._caller = Caller(
            spec,
            config.cluster,
            self._origin,
            boot=config.boot_id,
            answer=self._answer,
            plane=None if config.objects is None else ObjectPlane.of(config.objects),
            now_ns=time.monotonic_ns,
        )

    @property
    def keeper(self) -> WorkerKeeper:
        """Who has the worker."""
        assert self._keeper is not None
        return self._keeper

    def _answer(self, word: CallPiece | CallEnded) -> None:
        self.keeper.answer(word)

    def attach(self, keeper: WorkerKeeper, feed: Callable[[Stepped], None]) -> None:
        """Say who has the worker, and who takes what handlers give."""
        self._keeper, self._feed = keeper, feed

    async def start(self) -> None:
        """Connect as an origin.

        Raises:
            StartError: no broker, no permission, or no scheduler.
        """
        await self._origin.start(scheduler_s=SCHEDULER_S)

    async def close(self) -> None:
        """Cancel all calls and disconnect."""
        self.end_all()
        await self._origin.close()

    def serves(self, work: StartWork) -> bool:
        """Whether a handler takes this, rather than the engine."""
        return work.request.capability in self._serves

    def begin(self, work: StartWork) -> None:
        """Give an attempt to its handler.

        Raises:
            ProtocolError: the body of the request cannot be read.
        """
        request = handler_request(work, self._caller.begin(work))
        self.keeper.handle(request)

    def end(self, key: str) -> None:
        """The attempt is over: its calls are cancelled."""
        self._caller.end(key)

    def end_all(self) -> None:
        """The worker is gone: so is everybody who waits for an answer."""
        self._caller.end_all()

    # --- what the worker says --------------------------------------------------------------------

    def on_outputs(self, outputs: list[Output]) -> None:
        """Handlers gave these."""
        assert self._feed is not None
        for output in outputs:
            if output.done:
                self._caller.end(output.key)
        self._feed(Stepped(deltas=output_deltas(outputs)))

    def on_call(self, call: Call) -> None:
        """A handler asks for a capability."""
        self._caller.make(call)

    def on_call_cancel(self, number: int) -> None:
        """Nobody waits for this call any more."""
        self._caller.cancel(number)


def calls_name(replica_id: str) -> str:
    """The id, as an origin, of a replica's calls; at most 32 characters, unique as the id is."""
    if len(replica_id) + len(_SUFFIX) <= 32:  # noqa: PLR2004 - what a topic takes
        return f"{replica_id}{_SUFFIX}"
    short = hashlib.blake2b(replica_id.encode(), digest_size=4).hexdigest()
    return f"{replica_id[:17]}-{short}{_SUFFIX}"
