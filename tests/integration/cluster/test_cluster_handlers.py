"""Users' handlers in real workers: typed, streamed, cancelled, failing, calling, and large."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import handler_app
import msgspec
import pytest
import pytest_asyncio
from live import WAIT_S, LiveCluster, echo, outcome, replica

from anyserve.core.effects import Outcome, OutcomeKind
from anyserve.core.events import AttemptStarted, RequestOffered, RequestOutcome, WorkerChanged
from anyserve.core.messages import Code
from anyserve.core.spec import (
    AppSpec,
    CapabilitySpec,
    ClusterSpec,
    EngineSpec,
    ObjectsSpec,
    ReplicaSpec,
)
from anyserve.runtime.answers import read_answer
from anyserve.runtime.engines.base import Task
from anyserve.runtime.handlers.offers import try_apps
from anyserve.runtime.handlers.words import ObjectsConfig, Payload
from anyserve.runtime.objects.plane import ObjectPlane
from anyserve.runtime.origin import Draft, Handle, OriginClient

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

APP = "handler_app:app"
EVERYWHERE = tuple(name for name in handler_app.app.handlers if name not in {"alone", "die"})


def running(name: str, *serves: str, concurrency: int = 4) -> ReplicaSpec:
    offered = replica(name, *serves, engine=EngineSpec(kind="none"), concurrency=concurrency)
    return msgspec.structs.replace(offered, app=AppSpec(name=APP, serves=serves))


def cluster_spec() -> ClusterSpec:
    both = msgspec.structs.replace(
        replica("e1", "decode", "die", engine=echo(256, step_ms=1.0), concurrency=2),
        app=AppSpec(name=APP, serves=("die",)),
    )
    replicas = (
        running("a1", *EVERYWHERE),
        running("b1", *EVERYWHERE),
        running("solo", "alone", "die", concurrency=1),
        both,
    )
    names = {offer.capability for one in replicas for offer in one.offers}
    return ClusterSpec(
        name=f"t-{uuid.uuid4().hex[:8]}",
        capabilities=tuple(CapabilitySpec(name=name) for name in sorted(names)),
        replicas=replicas,
        objects=ObjectsSpec(limit_bytes=64 << 20, threshold_bytes=1000),
        call_depth=3,
    )


@dataclass
class Answered:
    """All that came of a request."""

    handle: Handle
    outcome: Outcome
    values: list[Any]
    items: list[bool]
    refs: int


@dataclass
class Client:
    """Asks handlers and reads what they say."""

    cluster: LiveCluster
    origin: OriginClient
    plane: ObjectPlane

    def offer(self, capability: str, payload: Any = None, **changes: Any) -> Handle:
        draft = Draft(
            capability=capability,
            task=Task.HANDLE,
            payload=msgspec.json.encode(payload),
            **changes,
        )
        return self.origin.offer(draft, streamed=True)

    async def ask(self, capability: str, payload: Any = None, **changes: Any) -> Answered:
        return await self.read(self.offer(capability, payload, **changes))

    async def read(self, handle: Handle) -> Answered:
        values, items, refs = [], [], 0
        async with asyncio.timeout(WAIT_S):
            async for frame in handle:
                if not frame.has_data:
                    continue
                piece = read_answer(frame.data).result
                assert piece is not None
                refs += piece.ref is not None
                said = await self.plane.expand(Payload(bytes(piece.payload), piece.ref))
                values.append(json.loads(bytes(said)))
                items.append(piece.item)
        return Answered(handle, await outcome(handle), values, items, refs)

    async def value(self, capability: str, payload: Any = None, **changes: Any) -> Any:
        answered = await self.ask(capability, payload, **changes)
        assert answered.outcome.kind is OutcomeKind.COMPLETED, answered.outcome
        assert answered.items == [False]
        return answered.values[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[Client]:
    directory = str(Path(handler_app.__file__).parent)
    spec, facts = await try_apps(cluster_spec(), directory)
    assert facts[APP].origin == handler_app.__file__
    assert facts[APP].files == [handler_app.__file__]
    cluster = LiveCluster(spec)
    cluster.raising = {f"worker-{one.id}.log" for one in cluster.spec.replicas}
    await cluster.up(extra={"replica": {"scenario_dir": directory}})
    try:
        objects = ObjectsConfig(directory=cluster.record.objects, rules=cluster.spec.objects)
        yield Client(cluster, await cluster.origin(), ObjectPlane.of(objects))
        await cluster.close()
    finally:
        await cluster.abandon()


async def test_payloads_and_results_have_types(client: Client) -> None:
    segment = {"a": {"x": 1}, "b": {"x": 2, "y": 5}}

    assert await client.value("sum", segment) == {"x": 3, "y": 5}
    assert await client.value("sum", segment, attributes={"unit": "m"}) == {"x": 3, "y": 5}
    other = await client.ask("sum", segment, attributes={"unit": "ft"})
    assert other.outcome.kind is OutcomeKind.REJECTED
    assert await client.value("name", {"name": "Ada", "tags": ["a"]}) == {"hello": "Ada", "tags": 1}


@pytest.mark.parametrize(
    ("capability", "payload", "said"),
    [
        ("sum", {"a": {"x": 1}, "b": {"x": "2"}}, "got `str` (at $.b.x)"),
        ("sum", None, "got `null`"),
        ("name", {"name": "Ada", "tags": [1]}, "valid string (at $.tags[0])"),
        ("fail", "invalid", "not that one (at $.how)"),
    ],
)
async def test_a_payload_that_does_not_fit_is_invalid_and_the_place_is_named(
    client: Client, capability: str, payload: Any, said: str
) -> None:
    answered = await client.ask(capability, payload)

    assert (answered.outcome.kind, answered.outcome.code) == (OutcomeKind.FAILED, Code.INVALID)
    assert said in answered.outcome.message


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("fly", "ValueError: cannot fly"),
        ("exit", "SystemExit: 3"),
        ("type", "TypeError: the handler gave int, its annotation says str"),
    ],
)
async def test_an_exception_fails_its_own_request_only(client: Client, how: str, said: str) -> None:
    neighbour = client.offer("count", 2000)
    answered = await client.ask("fail", how)

    assert (answered.outcome.kind, answered.outcome.code) == (
        OutcomeKind.FAILED,
        Code.HANDLER_ERROR,
    )
    assert answered.outcome.message == said
    assert (await client.read(neighbour)).values == list(range(2000))


@pytest.mark.parametrize("capability", ["count", "count.plain"])
async def test_a_generator_streams_every_item_once_and_in_order(
    client: Client, capability: str
) -> None:
    answers = await asyncio.gather(*(client.ask(capability, upto) for upto in (0, 1, 300)))

    assert [one.values for one in answers] == [[], [0], list(range(300))]
    assert all(all(one.items) for one in answers)
    assert {one.outcome.finish for one in answers} == {"stop"}


@pytest.mark.parametrize("capability", ["wait", "wait.plain"])
async def test_a_cancelled_handler_is_told_and_frees_its_slot(
    client: Client, capability: str, tmp_path: Path
) -> None:
    notes = [tmp_path / f"note-{number}" for number in range(8)]  # every slot of both replicas
    handles = [client.offer(capability, str(note)) for note in notes]
    await until(lambda: all(Path(f"{note}.began").exists() for note in notes))
    for handle in handles:
        client.origin.cancel(handle.id)
    outcomes = [await outcome(handle) for handle in handles]

    assert {one.kind for one in outcomes} == {OutcomeKind.CANCELLED}
    await until(lambda: all(note.exists() for note in notes))
    assert {note.read_text() for note in notes} == {"cancelled=True"}
    assert await client.value("length", "abc") == 3


async def test_a_handler_is_cancelled_at_its_deadline(client: Client, tmp_path: Path) -> None:
    answered = await client.ask("wait", str(tmp_path / "note"), deadline_ms=150)

    assert answered.outcome.kind is OutcomeKind.EXPIRED
    await until((tmp_path / "note").exists)


async def test_a_call_carries_deadline_priority_and_trace(client: Client) -> None:
    asked = client.offer("relay", {"to": "facts"}, deadline_ms=20_000, priority=3)
    answered = await client.read(asked)

    (facts,) = answered.values
    assert (facts["depth"], facts["priority"]) == (1, 3)
    assert 0 < facts["left_s"] <= 20
    offered = await client.cluster.watcher.event(RequestOffered, parent=asked.id)
    assert (offered.id, offered.capability) == (facts["id"], "facts")
    assert offered.id.startswith(("a1-calls/", "b1-calls/"))
    own = await client.value("facts")
    assert (own["depth"], own["left_s"]) == (0, None)


async def test_a_call_may_be_stricter_than_its_request(client: Client, tmp_path: Path) -> None:
    asked = {"to": "wait", "payload": str(tmp_path / "note"), "timeout_s": 0.2}
    answer = await client.value("relay", asked)

    assert answer["code"] == "deadline_exceeded"
    await until((tmp_path / "note").exists)


async def test_a_request_that_is_cancelled_takes_its_calls_with_it(
    client: Client, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    asked = client.offer("relay", {"to": "relay", "payload": {"to": "wait", "payload": str(note)}})
    await until(lambda: Path(f"{note}.began").exists())
    client.origin.cancel(asked.id)

    await until(note.exists)
    children = await below(client, asked.id)
    assert len(children) == 2
    for child in children:
        ended = await client.cluster.watcher.event(RequestOutcome, id=child)
        assert (ended.outcome, ended.code) == ("cancelled", "client_cancelled")


async def test_a_call_to_an_engine_takes_text_and_gives_text(client: Client) -> None:
    asked = {"to": "decode", "payload": {"prompt": "tea ", "max_tokens": 6}}

    assert await client.value("relay", asked) == {
        "text": "tea te",
        "tokens": list(b"tea te"),
        "finish": "length",
    }
    pieces = await client.value("relay", {**asked, "stream": True})
    assert "".join(piece["text"] for piece in pieces) == "tea te"
    assert len(pieces) == 6
    assert await client.value("relay.plain", {"to": "decode", "payload": "x"}) == {
        "text": "x" * 128,
        "tokens": [120] * 128,
        "finish": "length",
    }
    bad = await client.value("relay", {"to": "decode", "payload": {"promt": "x"}})
    assert bad["code"] == "invalid_request"
    assert "promt" in bad["message"]


async def test_a_stream_of_a_stream_arrives_whole(client: Client) -> None:
    answered = await client.ask("relay.live", {"to": "count", "payload": 40})

    assert answered.values == list(range(40))
    collected = await client.value("relay", {"to": "count", "payload": 3})
    assert collected == [0, 1, 2]


async def test_a_call_that_fails_says_how(client: Client) -> None:
    failed = await client.value("relay", {"to": "fail", "payload": "swim"})
    unknown = await client.value("relay", {"to": "nobody"})

    assert failed == {"code": "handler_error", "message": "fail: ValueError: cannot swim"}
    assert unknown["code"] == "unknown_capability"


async def test_calls_nest_as_deep_as_the_scenario_says(client: Client) -> None:
    assert await client.value("nest") == [0, 1, 2, 3]


async def test_a_call_that_would_wait_for_its_own_slot_is_refused(client: Client) -> None:
    assert await client.value("alone") == "call_deadlock"


async def test_large_payloads_and_results_travel_as_objects(client: Client) -> None:
    sent = await client.plane.shrink(Payload(msgspec.json.encode("y" * 5000)))
    assert sent.ref is not None
    asked = Draft(capability="length", task=Task.HANDLE, payload_ref=sent.ref)
    counted = await client.read(client.origin.offer(asked, streamed=True))
    assert counted.values == [5000]

    answered = await client.ask("long", 5000)
    assert (answered.values, answered.refs) == (["x" * 5000], 1)
    assert (await client.ask("long", 10)).refs == 0

    through = {"to": "length", "payload": "z" * 3000}
    assert await client.value("relay", through) == 3000


async def test_an_array_is_put_by_one_worker_and_mapped_by_another(client: Client) -> None:
    ref = await client.value("make", 50_000)
    looked = await client.value("look", ref)

    assert (ref["size"], ref["shape"], ref["dtype"]) == (400_000, [50_000], "<i8")
    total = 50_000 * 49_999 // 2
    assert looked == {"sum": total, "writable": False, "same": True}
    gone = await client.ask("look", {**ref, "id": "0" * 32})
    assert gone.outcome.code is Code.HANDLER_ERROR
    assert "is gone" in gone.outcome.message


async def test_a_worker_class_starts_once_and_keeps_its_state(client: Client) -> None:
    seen = [await client.value("warm", None, entry="a1") for _ in range(3)]

    assert [started for started, _ in seen] == [True] * 3
    counts = [count for _, count in seen]
    assert counts == list(range(counts[0], counts[0] + 3))


async def test_handlers_and_an_engine_share_a_worker(client: Client) -> None:
    prompt = Draft(capability="decode", prompt_ids=[1, 2, 3], max_tokens=4, entry="e1")
    handle = client.origin.offer(prompt)
    wrong = await client.ask("decode", {"prompt": "x"}, entry="e1")

    assert (await outcome(handle)).kind is OutcomeKind.COMPLETED
    assert handle.tokens[0] == [1, 2, 3, 1]
    assert wrong.outcome.code is Code.INVALID
    assert "takes a prompt" in wrong.outcome.message


async def test_a_prompt_that_reaches_a_handler_is_its_payload(client: Client) -> None:
    prompt = Draft(capability="name", prompt_ids=[1, 2], max_tokens=4)
    answered = await client.read(client.origin.offer(prompt, streamed=True))

    assert answered.outcome.code is Code.INVALID
    assert "Field required (at $.name)" in answered.outcome.message


async def test_a_worker_that_dies_is_replaced_and_its_requests_recover_or_end(
    client: Client,
) -> None:
    mark = client.cluster.watcher.mark()
    answered = await client.ask("die")

    assert answered.outcome.kind is OutcomeKind.FAILED
    assert answered.outcome.code in {Code.POISONED, Code.WORKER_DIED}
    watcher = client.cluster.watcher
    await watcher.until(
        lambda: len(watcher.find(AttemptStarted, since=mark, id=answered.handle.id)) == 2,
        "a second attempt",
    )
    for name in ("solo", "e1"):
        await client.cluster.watcher.event(WorkerChanged, since=mark, replica=name, state="ready")
    assert await client.value("alone") == "call_deadlock"


async def test_a_stream_that_breaks_is_never_begun_again(client: Client) -> None:
    mark = client.cluster.watcher.mark()
    answered = await client.ask("live.die", 5)

    assert answered.values == [0, 1, 2, 3, 4]
    assert (answered.outcome.kind, answered.outcome.code) == (
        OutcomeKind.FAILED,
        Code.WORKER_DIED,
    )
    assert "after a part of the answer had reached the client" in answered.outcome.message
    ended = await client.cluster.watcher.event(RequestOutcome, id=answered.handle.id)
    assert ended.submissions == 1
    tried = client.cluster.watcher.find(AttemptStarted, since=mark, id=answered.handle.id)
    assert len(tried) == 1


async def below(client: Client, request_id: str) -> list[str]:
    """The requests that a request led to, nearest first."""
    found: list[str] = []
    parent = request_id
    watcher = client.cluster.watcher
    for _ in range(2):
        parent = (await watcher.event(RequestOffered, parent=parent)).id
        found.append(parent)
    return found


async def until(holds: Any) -> None:
    """Wait for something that another process does to a file."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - files tell nobody
            await asyncio.sleep(0.01)
