"""`anyserve send`: one request to a running cluster."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.finish import read_resolved
from anyserve.cli.session import Session
from anyserve.core.capability import Ladder
from anyserve.core.effects import Outcome, OutcomeKind
from anyserve.core.spec import ClusterSpec, EngineSpec
from anyserve.errors import TimeLimitError, UsageError
from anyserve.runtime.bus.address import Role
from anyserve.runtime.clusters import ClusterRecord, ClusterStore, state_dir
from anyserve.runtime.engines.base import Sampling, Task
from anyserve.runtime.models.codec import Codec, load_tokenizer
from anyserve.runtime.origin import Draft, Handle, OriginClient
from anyserve.runtime.process import boot_id
from anyserve.telemetry.runs import RunDirectory

SCHEMA: Final = "anyserve.answer/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """What to ask, and of whom."""

    text: str | None
    payload: str | None
    capability: str
    entry: str
    max_tokens: int
    temperature: float
    stream: bool
    raw: bool
    timeout_s: float
    cluster: str | None
    as_json: bool


def run_send(session: Session, options: SendOptions) -> int:
    """Send the request and show the answer; 0 where it was completed, else 1.

    With a payload it is sent as JSON (`cli.asking`).

    Raises:
        AnyServeError: no cluster, no such capability, no broker, or no time left.
    """
    if (options.text is None) == (options.payload is None):
        message = "give either TEXT or --json-payload JSON"
        raise UsageError(message, code="usage", hint="anyserve send --help")
    name = session.setting("cluster", options.cluster)
    store = ClusterStore(state_dir(session.environ))
    record = store.find(None if name is None else str(name))
    cluster = cluster_of(record)
    if options.payload is not None:
        from anyserve.cli.asking import run_ask  # noqa: PLC0415 - few need it

        return run_ask(session, options, record, cluster)
    engine = _engine_for(cluster, options.capability)
    text = sys.stdin.read() if options.text == "-" else options.text or ""
    sending = _Sending(session, options, record, cluster, engine)
    return asyncio.run(sending.run(text))


def make_client(record: ClusterRecord, cluster: ClusterSpec) -> OriginClient:
    """An origin of this process's own."""
    return OriginClient(
        address=record.broker,
        credential=record.role_credentials().of(Role.ORIGIN),
        prefix=record.prefix,
        name=f"cli-{os.getpid()}",
        cluster=cluster,
        incarnation=time.time_ns() // 1_000_000,
        boot=boot_id(),
    )


class _Sending:
    def __init__(
        self,
        session: Session,
        options: SendOptions,
        record: ClusterRecord,
        cluster: ClusterSpec,
        engine: EngineSpec,
    ) -> None:
        self._session = session
        self._options = options
        self._task = Task(engine.task)
        self._codec = Codec(load_tokenizer(engine))
        self._client = make_client(record, cluster)

    async def run(self, text: str) -> int:
        options = self._options
        begun_s = time.monotonic()
        await self._client.start()
        try:
            handle = self._client.offer(self._draft(text), streamed=True)
            async with asyncio.timeout(options.timeout_s):
                answer = await self._read(handle)
                outcome = await handle.outcome
        except TimeoutError:
            message = f"no answer within {options.timeout_s:g} s"
            raise TimeLimitError(message, code="send_timeout", hint="--timeout S") from None
        finally:
            await self._client.close()
        self._show(handle, outcome, answer, time.monotonic() - begun_s)
        completed = outcome.kind is OutcomeKind.COMPLETED
        return ExitCode.OK if completed else ExitCode.EXPECTATIONS_FAILED

    def _draft(self, text: str) -> Draft:
        options = self._options
        chat = not options.raw and self._task is Task.GENERATE
        return Draft(
            capability=options.capability,
            prompt_ids=self._codec.encode(text, chat=chat),
            max_tokens=options.max_tokens,
            task=self._task,
            sampling=Sampling(max_tokens=options.max_tokens, temperature=options.temperature),
            entry=options.entry,
        )

    async def _read(self, handle: Handle) -> str:
        parts: list[str] = []
        async for frame in handle:
            self._take(self._codec.push(frame.tokens), parts)
        self._take(self._codec.finish(), parts)
        return "".join(parts)

    def _take(self, text: str, parts: list[str]) -> None:
        parts.append(text)
        if self._options.stream and text:
            self._session.output.text(_safe(text))

    def _show(self, handle: Handle, outcome: Outcome, answer: str, took_s: float) -> None:
        options, output = self._options, self._session.output
        if options.as_json:
            output.json(self._object(handle, outcome, answer, took_s))
            return
        if handle.data:
            output.line(bytes(handle.data[-1]).decode())
        elif options.stream:
            output.line()
        else:
            output.line(_safe(answer))
        if outcome.kind is not OutcomeKind.COMPLETED:
            code = outcome.code.value if outcome.code else outcome.kind.value
            text = outcome.message or f"the request was {outcome.kind.value}"
            self._session.diagnostics.error(code, text, f"anyserve explain {code}")
            return
        self._session.diagnostics.say(
            f"{handle.id}: {outcome.n_tokens} tokens from {outcome.served_by} in {took_s:.2f} s"
        )

    def _object(
        self, handle: Handle, outcome: Outcome, answer: str, took_s: float
    ) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "id": handle.id,
            "outcome": outcome.kind.value,
            "code": outcome.code.value if outcome.code else None,
            "message": outcome.message or None,
            "text": answer,
            "data": [json.loads(bytes(one)) for one in handle.data],
            "n_tokens": outcome.n_tokens,
            "finish": outcome.finish,
            "served_by": outcome.served_by,
            "took_s": round(took_s, 4),
        }


def _safe(text: str) -> str:
    """A model's text, without the control characters that could steer a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else " " for char in text)


def cluster_of(record: ClusterRecord) -> ClusterSpec:
    """What a running cluster was made of.

    Raises:
        UsageError: its run directory does not tell.
    """
    cluster = read_resolved(RunDirectory(Path(record.run_dir))).cluster
    if cluster is None:
        raise UsageError(
            f"{record.name} has left no readable scenario in {record.run_dir}",
            code="no_cluster",
            hint="was the run directory moved?",
        )
    return cluster


def _engine_for(cluster: ClusterSpec, capability: str) -> EngineSpec:
    """The engine that will compute an answer: that of the lowest rung that is offered."""
    for rung in Ladder(cluster.ladder.upgrades).rungs(capability):
        for replica in cluster.replicas:
            if any(offer.capability == rung for offer in replica.offers):
                if replica.app is not None and rung in replica.app.serves:
                    raise UsageError(
                        f"a handler serves {rung}, and takes JSON",
                        code="usage",
                        hint="anyserve send --json-payload JSON -c NAME",
                    )
                return replica.engine
    known = sorted({offer.capability for replica in cluster.replicas for offer in replica.offers})
    raise UsageError(
        f"no replica of {cluster.name} offers {capability}",
        code="unknown_capability",
        hint=f"it offers: {', '.join(known)}",
    )
