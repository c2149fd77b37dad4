"""`Control` of a running cluster: wishes over its supervisor's socket, requests by an origin."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from anyserve.core.spec import ClusterSpec
from anyserve.errors import UsageError
from anyserve.runtime.bus.address import Role
from anyserve.runtime.clusters import ClusterRecord
from anyserve.runtime.engines.base import Task
from anyserve.runtime.models.codec import load_tokenizer
from anyserve.runtime.node_control import ConnectionFault
from anyserve.runtime.origin import Draft, OriginClient
from anyserve.runtime.origin.asking import engine_draft, engine_of, read_ask
from anyserve.runtime.process import boot_id
from anyserve.runtime.supervisor import control

PROMPT: Final = "What can be computed here?"
MAX_TOKENS: Final = 64
_WORKER: Final = ".worker"
_STREAM: Final = "operator"
"""What the requests of a person are called where traffic is told apart by stream."""


class ClusterControl:
    """Verbs on the cluster of `record`; `cluster` is what it was made of. `close` it at the end.

    Every verb raises `AnyServeError` where it cannot be done, with the reason and a hint.
    """

    def __init__(self, record: ClusterRecord, cluster: ClusterSpec) -> None:
        self._record = record
        self._cluster = cluster
        self._origin: OriginClient | None = None

    async def drain(self, replica: str) -> None:
        """Give `replica` nothing new; it finishes or hands back what it has."""
        await self._ask(control.Drain(id=replica))

    async def resume(self, replica: str) -> None:
        """Take `replica`, or `<replica>.worker`, back: out of a drain or a hang."""
        target, name = _target(replica)
        await self._ask(control.Resume(target=target, id=name))

    async def kill(self, target: str) -> None:
        """Kill a replica, or `<replica>.worker`, without warning."""
        kind, name = _target(target)
        await self._ask(control.Kill(target=kind, id=name))

    async def hang(self, target: str, duration_s: float | None = None) -> None:
        """Stop a replica or worker in its tracks, for ever or for a while."""
        kind, name = _target(target)
        await self._ask(control.Hang(target=kind, id=name, duration_s=duration_s))

    async def slow(self, replica: str, factor: float) -> None:
        """Make each step of `replica` take `factor` times as long; 1 is normal."""
        await self._ask(control.Slow(id=replica, factor=factor))

    async def partition(self, replica: str, duration_s: float | None = None) -> None:
        """Cut `replica` off from the broker, for ever or for a while."""
        how = ConnectionFault(kind="partition")
        await self._ask(control.Disturb(id=replica, how=how, duration_s=duration_s))

    async def rate(self, factor: float) -> None:
        """Offer the rest of the scenario's traffic `factor` times as fast; 0 pauses it."""
        await self._ask(control.Rate(factor=factor))

    async def send(
        self, capability: str, *, entry: str | None = None, options: Mapping[str, str] | None = None
    ) -> str:
        """Offer one request, at the scheduler or at the replica `entry`; gives its id.

        `options`: `prompt`, `max_tokens`. For a handler `payload`, a JSON text.
        """
        self._check_entry(entry)
        draft = replace(
            self._draft(capability, options or {}), entry=entry or "scheduler", stream=_STREAM
        )
        if self._origin is None:
            origin = self._make_origin()
            await origin.start()
            self._origin = origin
        return self._origin.offer(draft).id

    async def close(self) -> None:
        """Give up what was sent and not answered yet; a second call does nothing."""
        origin, self._origin = self._origin, None
        if origin is not None:
            await origin.close()

    async def _ask(self, request: control.AnyRequest) -> None:
        await control.request(Path(self._record.control), request)

    def _check_entry(self, entry: str | None) -> None:
        known = [replica.id for replica in self._cluster.replicas]
        if entry not in {None, "scheduler", *known}:
            raise UsageError(
                f"no replica '{entry}' to enter at",
                code="unknown_entry",
                hint=f"known: scheduler, {', '.join(known)}",
            )

    def _draft(self, capability: str, options: Mapping[str, str]) -> Draft:
        engine = engine_of(self._cluster, capability)
        if engine is None:
            payload = options.get("payload", "null").encode()
            return Draft(capability=capability, task=Task.HANDLE, max_tokens=0, payload=payload)
        ask = {
            "prompt": options.get("prompt", PROMPT),
            "max_tokens": _count(options.get("max_tokens", str(MAX_TOKENS))),
        }
        return engine_draft(
            capability, engine, read_ask(msgspec.json.encode(ask)), load_tokenizer(engine)
        )

    def _make_origin(self) -> OriginClient:
        return OriginClient(
            address=self._record.broker,
            credential=self._record.role_credentials().of(Role.ORIGIN),
            prefix=self._record.prefix,
            name=f"ui-{os.getpid()}",
            cluster=self._cluster,
            incarnation=time.time_ns() // 1_000_000,
            boot=boot_id(),
        )


def _target(text: str) -> tuple[control.Target, str]:
    if text.endswith(_WORKER):
        return "worker", text.removesuffix(_WORKER)
    return "replica", text


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise UsageError(f"max_tokens is a number above 0, not {text!r}", code="bad_request")
    return count
