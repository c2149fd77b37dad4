"""`anyserve send --json-payload`: JSON to a handler (or an engine), and what it answers."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.session import Session
from anyserve.core.effects import Outcome, OutcomeKind
from anyserve.core.spec import ClusterSpec, EngineSpec
from anyserve.errors import ObjectError, TimeLimitError, UsageError
from anyserve.runtime.bus.address import Role
from anyserve.runtime.clusters import ClusterRecord
from anyserve.runtime.engines.base import Task
from anyserve.runtime.handlers.words import ObjectsConfig, Payload
from anyserve.runtime.models.codec import load_tokenizer
from anyserve.runtime.models.tokenizers import TextTokenizer
from anyserve.runtime.objects.plane import ObjectPlane
from anyserve.runtime.objects.token import object_token
from anyserve.runtime.origin import Draft, Handle, OriginClient
from anyserve.runtime.origin.asking import (
    EngineAnswer,
    engine_draft,
    engine_of,
    handler_pieces,
    read_ask,
)

if TYPE_CHECKING:
    from anyserve.cli.sending import SendOptions


def run_ask(
    session: Session, options: SendOptions, record: ClusterRecord, cluster: ClusterSpec
) -> int:
    """Send the payload and show the answer; 0 where it was completed, else 1.

    Raises:
        AnyServeError: it is no JSON, nobody answers, or no time is left.
    """
    text = sys.stdin.read() if options.payload == "-" else options.payload or ""
    try:
        json.loads(text)
    except ValueError as error:
        hint = "quote it for the shell, or give - and pipe it in"
        raise UsageError(f"the payload is no JSON: {error}", code="usage", hint=hint) from None
    return asyncio.run(_run(session, options, record, cluster, text.encode()))


async def _run(
    session: Session,
    options: SendOptions,
    record: ClusterRecord,
    cluster: ClusterSpec,
    payload: bytes,
) -> int:
    from anyserve.cli.sending import make_client  # noqa: PLC0415 - which imports us

    asking = _Asking(session, options, _plane(record, cluster), make_client(record, cluster))
    return await asking.run(payload, engine_of(cluster, options.capability))


def _plane(record: ClusterRecord, cluster: ClusterSpec) -> ObjectPlane | None:
    """The cluster's object plane, where this host has it."""
    if not record.objects or not Path(record.objects).is_dir():
        return None
    token = object_token(record.role_credentials().of(Role.ORIGIN))
    config = ObjectsConfig(directory=record.objects, rules=cluster.objects, token=token)
    return ObjectPlane.of(config)


@dataclass(slots=True)
class _Asking:
    session: Session
    options: SendOptions
    plane: ObjectPlane | None
    client: OriginClient

    async def run(self, payload: bytes, engine: EngineSpec | None) -> int:
        options = self.options
        tokenizer = None if engine is None else load_tokenizer(engine)
        draft = await self._draft(payload, engine, tokenizer)
        begun_s = time.monotonic()
        answers: list[Any] = []
        await self.client.start()
        try:
            handle = self.client.offer(replace(draft, entry=options.entry), streamed=True)
            async with asyncio.timeout(options.timeout_s):
                async for one in self._answers(handle, engine, tokenizer):
                    answers.append(one)
                    if not options.as_json:
                        self.session.output.line(json.dumps(one, ensure_ascii=False))
                outcome = await handle.outcome
        except TimeoutError:
            message = f"no answer within {options.timeout_s:g} s"
            raise TimeLimitError(message, code="send_timeout", hint="--timeout S") from None
        finally:
            await self.client.close()
        self._tell(handle, outcome, answers, time.monotonic() - begun_s)
        completed = outcome.kind is OutcomeKind.COMPLETED
        return ExitCode.OK if completed else ExitCode.EXPECTATIONS_FAILED

    async def _draft(
        self, payload: bytes, engine: EngineSpec | None, tokenizer: TextTokenizer | None
    ) -> Draft:
        options = self.options
        if engine is not None:
            return engine_draft(options.capability, engine, read_ask(payload), tokenizer)
        sent = Payload(payload)
        if self.plane is not None:
            sent = await self.plane.shrink(sent)
        return Draft(
            capability=options.capability,
            task=Task.HANDLE,
            payload=sent.json,
            payload_ref=sent.ref,
        )

    async def _answers(
        self, handle: Handle, engine: EngineSpec | None, tokenizer: TextTokenizer | None
    ) -> AsyncIterator[Any]:
        """The result, or the items of a stream as they come; of an engine the whole answer."""
        if engine is None:
            async for frame in handle:
                for piece in handler_pieces(frame):
                    yield json.loads(bytes(await self._expand(Payload(piece.payload, piece.ref))))
            return
        answer = EngineAnswer(tokenizer)
        async for frame in handle:
            list(answer.take(frame))
        list(answer.finish())
        outcome = await handle.outcome
        if outcome.kind is OutcomeKind.COMPLETED:
            yield json.loads(answer.whole(outcome.finish))

    async def _expand(self, payload: Payload) -> bytes | memoryview:
        if self.plane is not None:
            return await self.plane.expand(payload)
        if payload.ref is not None:
            message = f"the answer is the object {payload.ref.id}, on another host"
            raise ObjectError(message, code="object_unreachable")
        return payload.json

    def _tell(self, handle: Handle, outcome: Outcome, answers: list[Any], took_s: float) -> None:
        code = outcome.code.value if outcome.code else None
        if self.options.as_json:
            self.session.output.json(
                {
                    "schema": "anyserve.answer/1",
                    "id": handle.id,
                    "outcome": outcome.kind.value,
                    "code": code,
                    "message": outcome.message or None,
                    "answers": answers,
                    "served_by": outcome.served_by,
                    "took_s": round(took_s, 4),
                }
            )
        elif outcome.kind is not OutcomeKind.COMPLETED:
            text = outcome.message or f"the request was {outcome.kind.value}"
            shown = code or outcome.kind.value
            self.session.diagnostics.error(shown, text, f"anyserve explain {shown}")
        else:
            text = f"{handle.id}: answered by {outcome.served_by} in {took_s:.2f} s"
            self.session.diagnostics.say(text)
