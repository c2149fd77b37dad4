"""`anyserve.Client` against a live cluster: handlers and engines, behind the HTTP door."""

from __future__ import annotations

import asyncio
import json
import queue
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import handler_app
import httpx
import msgspec
import numpy as np
import pytest
import pytest_asyncio
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from live import LiveCluster, echo, replica
from tritonclient.utils import InferenceServerException

from anyserve import AsyncClient, CallError, Client
from anyserve.core.events import RequestOffered, RequestOutcome
from anyserve.core.messages import Code
from anyserve.core.spec import (
    AppSpec,
    CapabilitySpec,
    ClusterSpec,
    EngineSpec,
    IngressSpec,
    ObjectsSpec,
)
from anyserve.runtime.bus.address import Role
from anyserve.runtime.handlers.offers import try_apps
from anyserve.runtime.handlers.words import ObjectsConfig
from anyserve.runtime.objects.directory import new_object_directory, remove_object_directory
from anyserve.runtime.objects.plane import ObjectPlane
from anyserve.runtime.objects.store import ObjectStore
from anyserve.runtime.objects.token import object_token
from anyserve.runtime.supervisor import control

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

APP = "handler_app:app"
SERVED = ("sum", "name", "count", "fail", "wait", "facts", "length", "long", "live.die")


def spec() -> ClusterSpec:
    handlers = replica("a1", *SERVED, engine=EngineSpec(kind="none"), concurrency=4)
    replicas = (
        msgspec.structs.replace(handlers, app=AppSpec(name=APP, serves=SERVED)),
        replica("s1", "decode", engine=echo(256, step_ms=2.0), concurrency=2),
        replica("e1", "embedding", engine=echo(256, task="embed")),
        replica("n1", "narrow", engine=echo(8192, step_ms=20.0), concurrency=1),
    )
    names = {offer.capability for one in replicas for offer in one.offers}
    return ClusterSpec(
        name=f"t-{uuid.uuid4().hex[:8]}",
        capabilities=tuple(
            CapabilitySpec(name=name, queue_limit=1 if name == "narrow" else 1024)
            for name in sorted(names)
        ),
        replicas=replicas,
        ingress=IngressSpec(http_port=0, grpc_port=0),
        objects=ObjectsSpec(limit_bytes=64 << 20, threshold_bytes=1000),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[LiveCluster]:
    directory = str(Path(handler_app.__file__).parent)
    tried, _ = await try_apps(spec(), directory)
    live = LiveCluster(tried)
    live.raising = {f"worker-{one.id}.log" for one in tried.replicas}
    await live.up(extra={"replica": {"scenario_dir": directory}})
    try:
        yield live
        await live.close()
    finally:
        await live.abandon()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(cluster: LiveCluster) -> control.DoorStatus:
    status = msgspec.convert(await cluster.ask(control.Status()), control.ClusterStatus)
    return status.doors[0]


@pytest.fixture
def url(door: control.DoorStatus) -> str:
    return door.http


@pytest_asyncio.fixture(loop_scope="module")
async def client(url: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(url, max_retries=0) as made:
        yield made


async def refused(call: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        await call
    return caught.value


async def test_a_handler_gets_json_and_answers_typed(client: AsyncClient) -> None:
    segment = {"a": {"x": 1}, "b": {"x": 2, "y": 5}}

    reply = await client.request("sum", segment, result=handler_app.Point)

    assert reply.result == handler_app.Point(3, 5)
    assert (reply.replica, reply.capability, reply.hops) == ("a1", "sum", 1)
    assert reply.request_id.startswith("ingress/")
    named = await client.call("name", handler_app.Named(name="Ada", tags=["a"]))
    assert named == {"hello": "Ada", "tags": 1}


async def test_a_generator_streams_or_is_a_list(client: AsyncClient) -> None:
    items = [item async for item in client.stream("count", 40, item=int)]

    assert items == list(range(40))
    assert await client.call("count", 3, result=list[int]) == [0, 1, 2]
    assert await client.call("count", 0) == []


async def test_an_engine_answers_text_tokens_and_vectors(client: AsyncClient) -> None:
    answer = await client.call("decode", {"prompt": "hello world", "max_tokens": 5})
    pieces = [piece async for piece in client.stream("decode", {"prompt": "hey", "max_tokens": 3})]
    vector = await client.call("embedding", "some words")

    assert (answer["text"], answer["finish"], len(answer["tokens"])) == ("hello", "length", 5)
    assert "".join(piece["text"] for piece in pieces) == "hey"
    assert len(vector["embedding"]) > 1


async def test_what_is_large_travels_as_an_object_unseen(client: AsyncClient) -> None:
    assert await client.call("length", "x" * 50_000) == 50_000
    assert len(await client.call("long", 50_000)) == 50_000


async def test_deadline_and_priority_reach_the_handler(client: AsyncClient) -> None:
    facts = await client.call("facts", timeout_s=20, priority=4)

    assert facts["priority"] == 4
    assert 0 < facts["left_s"] <= 20
    assert facts["depth"] == 0


@pytest.mark.parametrize(
    ("capability", "payload", "options", "code"),
    [
        ("unheard.of", None, {}, "unknown_capability"),
        ("No Name", None, {}, "unknown_capability"),
        ("sum", {"a": 1}, {}, "invalid_request"),
        ("fail", "fly", {}, "handler_error"),
        ("fail", "invalid", {}, "invalid_request"),
        ("decode", {"frob": 1}, {}, "invalid_request"),
        ("sum", None, {"entry": "z9"}, "unknown_entry"),
        ("facts", None, {"priority": 10**6}, "invalid_request"),
    ],
)
async def test_errors_have_stable_codes(
    client: AsyncClient, capability: str, payload: Any, options: Any, code: str
) -> None:
    error = await refused(client.call(capability, payload, **options))

    assert error.code == code, error.message


async def test_a_call_ends_at_its_timeout(client: AsyncClient, tmp_path: Path) -> None:
    error = await refused(client.call("wait", str(tmp_path / "note"), timeout_s=0.2))

    assert error.code == "deadline_exceeded", error.message


async def test_a_broken_stream_says_so_after_what_had_come(client: AsyncClient) -> None:
    items: list[int] = []

    async def read() -> None:
        async for item in client.stream("live.die", 3):
            items.append(item)  # noqa: PERF401 - it ends in an error

    error = await refused(read())
    assert items == [0, 1, 2]
    assert error.code in {"worker_died", "resume_refused", "poisoned"}


async def test_leaving_a_stream_early_cancels_it(client: AsyncClient, cluster: LiveCluster) -> None:
    since = cluster.watcher.mark()
    async with client.stream("narrow", {"prompt": "a", "max_tokens": 4000}) as stream:
        async for _ in stream:
            break

    outcome = await cluster.watcher.event(RequestOutcome, since=since, outcome="cancelled")
    assert outcome.code == Code.CLIENT_CANCELLED.value


async def test_cancelling_the_task_cancels_the_request(
    client: AsyncClient, cluster: LiveCluster
) -> None:
    since = cluster.watcher.mark()
    task = asyncio.create_task(client.call("narrow", {"prompt": "a", "max_tokens": 4000}))
    offered = await cluster.watcher.event(RequestOffered, since=since, capability="narrow")
    task.cancel()

    outcome = await cluster.watcher.event(RequestOutcome, since=since, id=offered.id)
    assert outcome.code == Code.CLIENT_CANCELLED.value


async def test_the_plain_client_does_the_same(url: str) -> None:
    def use() -> tuple[Any, list[int], str]:
        with Client(url) as client:
            segment = {"a": {"x": 1}, "b": {"x": 1}}
            try:
                client.call("fail", "fly")
            except CallError as error:
                code = error.code
            with client.stream("count", 5) as stream:
                return client.call("sum", segment), list(stream), code

    assert await asyncio.to_thread(use) == ({"x": 2, "y": 0}, [0, 1, 2, 3, 4], "handler_error")


async def test_a_full_queue_is_waited_for(url: str, cluster: LiveCluster) -> None:
    """The server says when to come back; four at once go through one slot and a queue of one."""
    async with AsyncClient(url, max_retries=50) as client:
        calls = [client.call("narrow", {"prompt": "ab", "max_tokens": 2}) for _ in range(4)]
        answers = await asyncio.gather(*calls)

    assert [answer["text"] for answer in answers] == ["ab"] * 4


async def test_the_endpoint_by_hand(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http:
        empty = await http.post("/v1/capabilities/facts")
        bad = await http.post(
            "/v1/capabilities/facts", content=b"{", headers={"content-type": "application/json"}
        )
        got = await http.get("/v1/capabilities/facts")
        attributes = await http.post(
            "/v1/capabilities/sum", json=None, headers={"x-anyserve-attributes": "[]"}
        )

    assert empty.status_code == 200
    assert empty.headers["x-anyserve-replica"] == "a1"
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "invalid_request")
    assert (got.status_code, got.headers["allow"]) == (405, "POST")
    assert (attributes.status_code, attributes.json()["error"]["param"]) == (
        400, "x-anyserve-attributes",
    )  # fmt: skip


async def test_other_hosts_get_copies_of_this_one_s_objects(url: str, cluster: LiveCluster) -> None:
    token = object_token(cluster.record.role_credentials().of(Role.ORIGIN))
    here = ObjectStore(Path(cluster.record.objects), token=token)
    ref = here.put(b"payload" * 1000)
    elsewhere = new_object_directory()
    try:
        plane = ObjectPlane.of(ObjectsConfig(directory=str(elsewhere), token=token))
        assert ref.url == url
        assert await plane.get(ref) == b"payload" * 1000
        assert plane.store.has(ref)
    finally:
        remove_object_directory(elsewhere)
    async with httpx.AsyncClient(base_url=url) as other:
        assert (await other.get(f"/objects/{ref.id}")).status_code == 401
        wrong = {"authorization": "Bearer wrong"}
        assert (await other.get(f"/objects/{ref.id}", headers=wrong)).status_code == 401


def payload(value: Any) -> Any:
    """The one input of a handler."""
    tensor = triton.InferInput("payload", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([json.dumps(value).encode()], dtype=np.object_))
    return tensor


def results(answer: Any) -> list[Any]:
    return [json.loads(one) for one in answer.as_numpy("result")]


async def test_handlers_answer_over_grpc_too(door: control.DoorStatus) -> None:
    async with triton_aio.InferenceServerClient(door.grpc) as client:
        metadata = await client.get_model_metadata("sum")
        one = await client.infer("sum", [payload({"a": {"x": 1}, "b": {"x": 2}})])
        many = await client.infer("count", [payload(3)])
        large = await client.infer("long", [payload(50_000)])
        errors = [
            await _refused(client.infer("sum", [payload({"a": 1})])),
            await _refused(client.infer("sum", [payload(1)], parameters={"seed": 1})),
            await _refused(client.infer("fail", [payload("fly")])),
        ]

    assert [one.name for one in metadata.inputs] == ["payload", "stream"]
    assert [one.name for one in metadata.outputs] == ["result"]
    assert results(one) == [{"x": 3, "y": 0}]
    assert one.get_response().parameters["replica"].string_param == "a1"
    assert results(many) == [0, 1, 2]
    assert len(results(large)[0]) == 50_000
    assert errors == ["INVALID_ARGUMENT", "INVALID_ARGUMENT", "INTERNAL"]


async def _refused(call: Any) -> str:
    with pytest.raises(InferenceServerException) as caught:
        await call
    return str(caught.value.status()).removeprefix("StatusCode.")


async def test_a_generator_streams_over_grpc(door: control.DoorStatus) -> None:
    def use() -> list[tuple[list[Any], bool]]:
        heard: queue.Queue[Any] = queue.Queue()
        client = triton.InferenceServerClient(door.grpc)
        client.start_stream(lambda result, error: heard.put(error or result))
        client.async_stream_infer("count", [payload(3)])
        client.async_stream_infer("sum", [payload({"a": {"x": 1}, "b": {"x": 2}})])
        found: list[tuple[list[Any], bool]] = []
        while sum(final for _, final in found) < 2:
            answer = heard.get(timeout=30)
            final = answer.get_response().parameters["triton_final_response"].bool_param
            found.append((results(answer), final))
        client.stop_stream()
        client.close()
        return found

    found = await asyncio.to_thread(use)
    assert ([{"x": 3, "y": 0}], True) in found
    found.remove(([{"x": 3, "y": 0}], True))
    assert found == [([0], False), ([1], False), ([2], False), ([], True)]
