"""The gRPC door of a live cluster, by Triton's own client."""

from __future__ import annotations

import asyncio
import queue
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import httpx
import msgspec
import numpy as np
import pytest
import pytest_asyncio
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from live import LiveCluster, echo, replica, two_rungs
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from anyserve.core.events import AttemptEnded, RequestOffered, RequestOutcome
from anyserve.core.messages import Code
from anyserve.core.spec import CapabilitySpec, ClusterSpec, IngressSpec, ModelRoute
from anyserve.runtime.ingress.oip import inference_pb2 as pb
from anyserve.runtime.ingress.oip.responses import set_parameter
from anyserve.runtime.ingress.oip.service import SERVICE
from anyserve.runtime.supervisor import control

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


def spec() -> ClusterSpec:
    """`decode` and `decode.heavy`, an embedder, and one replica that serves one at a time."""
    ingress = IngressSpec(
        http_port=0,
        grpc_port=0,
        replica_grpc_port=0,
        models={"chatty": ModelRoute(capability="decode.heavy")},
    )
    made = two_rungs(
        small={"engine": echo(256, step_ms=2.0)},
        large={"engine": echo(2048, step_ms=2.0)},
        capabilities=[],
        ingress=ingress,
    )
    return ClusterSpec(
        name=made.name,
        capabilities=(
            *made.capabilities,
            CapabilitySpec(name="embedding"),
            CapabilitySpec(name="narrow", queue_limit=1),
            CapabilitySpec(name="nobody"),
        ),
        ladder=made.ladder,
        replicas=(
            *made.replicas,
            replica("e1", "embedding", engine=echo(512, task="embed")),
            replica("n1", "narrow", engine=echo(8192, step_ms=20.0), concurrency=1),
        ),
        ingress=ingress,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[LiveCluster]:
    live = await LiveCluster(spec()).up()
    yield live
    await live.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(cluster: LiveCluster) -> control.DoorStatus:
    """Where the doors are."""
    return (await doors(cluster))[""]


async def doors(cluster: LiveCluster) -> dict[str, control.DoorStatus]:
    """By the replica in whose process they are; empty: the cluster's own ingress."""
    status = msgspec.convert(await cluster.ask(control.Status()), control.ClusterStatus)
    return {one.replica: one for one in status.doors}


@pytest_asyncio.fixture(loop_scope="module")
async def client(opened: control.DoorStatus) -> AsyncIterator[Any]:
    async with triton_aio.InferenceServerClient(opened.grpc) as made:
        yield made


def text(value: str, name: str = "text_input") -> Any:
    tensor = triton.InferInput(name, [1], "BYTES")
    tensor.set_data_from_numpy(np.array([value.encode()], dtype=np.object_))
    return tensor


def ids(values: list[int]) -> Any:
    tensor = triton.InferInput("input_ids", [len(values)], "INT64")
    tensor.set_data_from_numpy(np.array(values, dtype=np.int64))
    return tensor


def said(result: Any) -> dict[str, Any]:
    """The parameters of a response."""
    parameters = result.get_response().parameters
    return {
        name: getattr(one, one.WhichOneof("parameter_choice")) for name, one in parameters.items()
    }


async def refused(call: Awaitable[Any]) -> InferenceServerException:
    with pytest.raises(InferenceServerException) as caught:
        await call
    return caught.value


async def test_who_is_there(client: Any) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("decode")
    assert await client.is_model_ready("chatty", "1")
    assert not await client.is_model_ready("chatty", "2")
    assert not await client.is_model_ready("unheard-of")
    assert not await client.is_model_ready("nobody")
    metadata = await client.get_server_metadata()
    assert metadata.name == "anyserve"
    assert "schedule_policy" in metadata.extensions


async def test_what_a_model_takes_and_gives(client: Any) -> None:
    text_model = await client.get_model_metadata("decode")
    vectors = await client.get_model_metadata("embedding")

    assert [(one.name, one.datatype) for one in text_model.inputs][:2] == [
        ("text_input", "BYTES"), ("input_ids", "INT64"),
    ]  # fmt: skip
    assert [one.name for one in text_model.outputs] == ["text_output", "output_ids"]
    assert [(one.name, one.datatype) for one in vectors.outputs] == [("embedding", "FP32")]
    error = await refused(client.get_model_metadata("unheard-of"))
    assert error.status() == "StatusCode.NOT_FOUND"


async def test_a_text_is_answered(client: Any) -> None:
    result = await client.infer("decode", [text("hello world")], request_id="r-7",
                                parameters={"max_tokens": 8, "temperature": "0.5"})  # fmt: skip

    assert result.as_numpy("text_output").tolist() == [b"hello wo"]
    assert result.get_response().id == "r-7"
    answer = said(result)
    assert (answer["replica"], answer["capability"], answer["hops"]) == ("s1", "decode", 1)
    assert (answer["finish_reason"], answer["prompt_tokens"], answer["completion_tokens"]) == (
        "length", 11, 8,
    )  # fmt: skip


async def test_token_ids_are_answered_in_kind(client: Any) -> None:
    result = await client.infer("chatty", [ids([5, 6, 7])], parameters={"max_tokens": 3},
                                outputs=[triton.InferRequestedOutput("output_ids")])  # fmt: skip

    assert result.as_numpy("output_ids").tolist() == [5, 6, 7]
    assert result.as_numpy("text_output") is None
    assert said(result)["capability"] == "decode.heavy"


async def test_what_is_too_long_for_one_rung_is_served_by_the_next(
    client: Any, cluster: LiveCluster
) -> None:
    parameters = {"max_tokens": 4, "entry": "s1"}
    result = await client.infer("decode", [ids(list(range(1, 301)))], parameters=parameters)

    answer = said(result)
    assert (answer["capability"], answer["replica"], answer["hops"]) == ("decode.heavy", "h1", 2)


async def test_the_parameter_names_the_capability_where_the_model_does_not(client: Any) -> None:
    parameters = {"max_tokens": 2, "capability": "decode.heavy"}
    result = await client.infer("", [text("abc", "prompt")], parameters=parameters)

    assert said(result)["replica"] == "h1"


async def test_any_request_may_enter_at_any_replica(cluster: LiveCluster) -> None:
    at_s1 = (await doors(cluster))["s1"]
    async with triton_aio.InferenceServerClient(at_s1.grpc) as client:
        result = await client.infer("chatty", [text("abc")], parameters={"max_tokens": 3})
        own = await client.infer("decode", [text("abc")], parameters={"max_tokens": 3})

    answer = said(result)
    assert (answer["capability"], answer["replica"], answer["hops"]) == ("decode.heavy", "h1", 2)
    assert (said(own)["replica"], said(own)["hops"]) == ("s1", 1)


async def test_sampling_parameters_come_as_a_tensor_too(client: Any) -> None:
    """As clients of Triton's backend for vLLM send them."""
    options = text('{"max_tokens": 20, "stop": ["wor"]}', "sampling_parameters")
    stream = triton.InferInput("stream", [1], "BOOL")
    stream.set_data_from_numpy(np.array([False]))
    result = await client.infer("decode", [text("hello world"), options, stream])

    assert result.as_numpy("text_output").tolist() == [b"hello "]
    assert said(result)["finish_reason"] == "stop"


async def test_several_choices_are_one_tensor(client: Any) -> None:
    result = await client.infer("decode", [text("ab")], parameters={"max_tokens": 2, "n": 3})

    assert result.as_numpy("text_output").shape == (3,)


async def test_a_vector(client: Any) -> None:
    result = await client.infer("embedding", [text("some words")])

    vector = result.as_numpy("embedding")
    assert vector.dtype == np.float32
    assert vector.ndim == 1
    assert vector.size > 1
    again = await client.infer("embedding", [text("some words")])
    assert (again.as_numpy("embedding") == vector).all()
    error = await refused(client.infer("embedding", [text("x")], parameters={"temperature": "0.1"}))
    assert "'temperature'" in error.message()


async def test_priority_and_timeout_reach_the_cluster(client: Any, cluster: LiveCluster) -> None:
    since = cluster.watcher.mark()
    await client.infer("decode", [text("a")], priority=3, timeout=30_000_000,
                       parameters={"max_tokens": 1})  # fmt: skip

    offered = await cluster.watcher.event(RequestOffered, since=since, priority=2)
    assert offered.deadline_ns is not None


@pytest.mark.parametrize(
    ("model", "inputs", "parameters", "status", "words"),
    [
        ("unheard-of", [text("x")], {}, "NOT_FOUND", "does not exist"),
        ("", [text("x")], {"capability": "none"}, "NOT_FOUND", "nobody knows"),
        ("nobody", [text("x")], {}, "UNAVAILABLE", "no replica offers"),
        ("decode", [], {}, "INVALID_ARGUMENT", "no prompt"),
        ("decode", [text("x"), ids([1])], {}, "INVALID_ARGUMENT", "2 prompts"),
        ("decode", [text("x", "audio")], {}, "INVALID_ARGUMENT", "'audio' is no input"),
        ("decode", [text("x")], {"frobnicate": 1}, "INVALID_ARGUMENT", "'frobnicate'"),
        ("decode", [text("x")], {"temperature": "9"}, "INVALID_ARGUMENT", "temperature"),
        ("decode", [text("x")], {"temperature": "hot"}, "INVALID_ARGUMENT", "is not JSON"),
        ("decode", [text("x")], {"max_tokens": "many"}, "INVALID_ARGUMENT", "max_tokens"),
        ("decode", [text("x")], {"capability": 3}, "INVALID_ARGUMENT", "must be a text"),
        ("decode", [text("x")], {"entry": "z9"}, "INVALID_ARGUMENT", "no replica 'z9'"),
        ("decode", [ids([-4])], {}, "INVALID_ARGUMENT", "token id"),
    ],
)
async def test_what_cannot_be_served_is_named(
    client: Any, model: str, inputs: list[Any], parameters: dict[str, Any], status: str, words: str
) -> None:
    error = await refused(client.infer(model, inputs, parameters=parameters))

    assert error.status() == f"StatusCode.{status}"
    assert words in error.message()


async def test_the_code_stands_beside_the_sentence(opened: control.DoorStatus) -> None:
    async with grpc.aio.insecure_channel(opened.grpc) as channel:
        request = pb.ModelInferRequest(model_name="unheard-of")
        request.inputs.add(name="text_input", datatype="BYTES", shape=[1]).contents.bytes_contents[
            :
        ] = [b"x"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _unary(channel, "ModelInfer", pb.ModelInferResponse)(request)

    metadata = dict(caught.value.trailing_metadata() or ())
    assert metadata["anyserve-code"] == "model_not_found"
    assert metadata["anyserve-param"] == "model"


def _unary(channel: grpc.aio.Channel, name: str, answer: Any) -> Callable[..., Awaitable[Any]]:
    return channel.unary_unary(
        f"/{SERVICE}/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )


async def test_typed_contents_are_answered_typed(opened: control.DoorStatus) -> None:
    request = pb.ModelInferRequest(model_name="decode")
    given = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    given.contents.bytes_contents.append(b"hey")
    request.parameters["max_tokens"].uint64_param = 3
    async with grpc.aio.insecure_channel(opened.grpc) as channel:
        response = await _unary(channel, "ModelInfer", pb.ModelInferResponse)(request)

    assert list(response.outputs[0].contents.bytes_contents) == [b"hey"]
    assert list(response.raw_output_contents) == []


class Stream:
    """Triton's own streaming client, which lives in threads."""

    def __init__(self, address: str) -> None:
        self.client = triton.InferenceServerClient(address)
        self.heard: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client.start_stream(lambda result, error: self.heard.put((result, error)))

    def ask(self, model: str, request_id: str, words: str = "hello", **parameters: Any) -> None:
        self.client.async_stream_infer(
            model, [text(words)], request_id=request_id, parameters=parameters
        )

    def until_final(self, count: int) -> tuple[dict[str, list[Any]], list[Any]]:
        """Results by request id, and errors, until so many requests are over."""
        results: dict[str, list[Any]] = {}
        errors: list[Any] = []
        ended = 0
        while ended < count:
            result, error = self.heard.get(timeout=30)
            if error is not None:
                errors.append(error)
                ended += 1
                continue
            results.setdefault(result.get_response().id, []).append(result)
            ended += bool(said(result)["triton_final_response"])
        return results, errors

    def close(self) -> None:
        self.client.stop_stream()
        self.client.close()


async def test_a_stream_gives_the_text_as_it_comes(opened: control.DoorStatus) -> None:
    def use() -> dict[str, list[Any]]:
        stream = Stream(opened.grpc)
        try:
            stream.ask("decode", "a", "hello world", max_tokens=11)
            return stream.until_final(1)[0]
        finally:
            stream.close()

    pieces = (await asyncio.to_thread(use))["a"]

    texts = [piece.as_numpy("text_output")[0] for piece in pieces]
    assert b"".join(texts) == b"hello world"
    assert len(pieces) > 2
    assert [said(piece)["triton_final_response"] for piece in pieces] == [
        *[False] * (len(pieces) - 1), True,
    ]  # fmt: skip
    assert said(pieces[-1])["finish_reason"] == "length"
    assert said(pieces[-1])["completion_tokens"] == 11


async def test_requests_of_one_stream_run_side_by_side_and_fail_alone(
    opened: control.DoorStatus,
) -> None:
    def use() -> tuple[dict[str, list[Any]], list[Any]]:
        stream = Stream(opened.grpc)
        try:
            stream.ask("decode", "a", "abcd", max_tokens=4)
            stream.ask("unheard-of", "b")
            stream.ask("decode.heavy", "c", "efgh", max_tokens=4)
            return stream.until_final(3)
        finally:
            stream.close()

    results, errors = await asyncio.to_thread(use)

    joined = {
        name: b"".join(piece.as_numpy("text_output")[0] for piece in pieces)
        for name, pieces in results.items()
    }
    assert joined == {"a": b"abcd", "c": b"efgh"}
    assert [error.message() for error in errors] == [
        "[model_not_found] the model 'unheard-of' does not exist"
    ]


async def test_a_client_that_leaves_cancels_its_requests(
    opened: control.DoorStatus, cluster: LiveCluster
) -> None:
    since = cluster.watcher.mark()
    channel = grpc.aio.insecure_channel(opened.grpc)
    request = pb.ModelInferRequest(model_name="narrow", id="long")
    given = request.inputs.add(name="input_ids", datatype="INT64", shape=[3])
    given.contents.int64_contents.extend([1, 2, 3])
    request.parameters["max_tokens"].int64_param = 4000
    call: Any = channel.stream_stream(
        f"/{SERVICE}/ModelStreamInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )()
    await call.write(request)
    first = await call.read()
    assert isinstance(first, pb.ModelStreamInferResponse)
    assert not first.error_message
    await channel.close()

    outcome = await cluster.watcher.event(RequestOutcome, since=since, outcome="cancelled")
    assert outcome.code == Code.CLIENT_CANCELLED.value
    ended = await cluster.watcher.event(AttemptEnded, since=since, id=outcome.id)
    assert ended.n_tokens < 4000


async def test_a_cancelled_call_is_cancelled_in_the_cluster(
    client: Any, cluster: LiveCluster
) -> None:
    since = cluster.watcher.mark()
    call = asyncio.ensure_future(
        client.infer("narrow", [ids([1, 2])], parameters={"max_tokens": 4000})
    )
    await cluster.watcher.event(RequestOffered, since=since, capability="narrow")
    call.cancel()

    outcome = await cluster.watcher.event(RequestOutcome, since=since, outcome="cancelled")
    await cluster.watcher.event(AttemptEnded, since=since, id=outcome.id)


async def test_the_deadline_of_the_call_is_the_requests(client: Any, cluster: LiveCluster) -> None:
    since = cluster.watcher.mark()
    call = client.infer(
        "narrow", [ids([1, 2])], parameters={"max_tokens": 4000}, client_timeout=0.3
    )
    error = await refused(call)

    assert error.status() == "StatusCode.DEADLINE_EXCEEDED"
    offered = await cluster.watcher.event(RequestOffered, since=since, capability="narrow")
    assert offered.deadline_ns is not None
    outcome = await cluster.watcher.event(RequestOutcome, since=since, id=offered.id)
    assert outcome.outcome in {"expired", "cancelled"}


async def test_a_timeout_that_passes_while_it_runs(client: Any) -> None:
    error = await refused(
        client.infer("narrow", [ids([1, 2])], timeout=200_000, parameters={"max_tokens": 4000})
    )

    assert error.status() == "StatusCode.DEADLINE_EXCEEDED"


async def test_more_than_the_queue_holds_is_resource_exhausted(
    client: Any, cluster: LiveCluster
) -> None:
    since = cluster.watcher.mark()
    calls = [
        asyncio.ensure_future(client.infer("narrow", [ids([1, 2])], parameters={"max_tokens": 40}))
        for _ in range(6)
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)

    errors = [one for one in results if isinstance(one, InferenceServerException)]
    assert 0 < len(errors) < 6
    assert {error.status() for error in errors} == {"StatusCode.RESOURCE_EXHAUSTED"}
    del since


PARAMETERS = st.dictionaries(
    st.sampled_from(
        ["max_tokens", "temperature", "stop", "seed", "n", "top_p", "priority", "timeout", "entry",
         "capability", "stop_token_ids", "logit_bias", "structured_outputs", "zzz"]
    ),
    st.one_of(st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=8)),
    max_size=3,
)  # fmt: skip
INPUTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["text_input", "input_ids", "sampling_parameters", "stream", "payload", "x"]
        ),
        st.sampled_from(["BYTES", "INT64", "BOOL", "INT32", "FP32", ""]),
        st.lists(st.integers(-1, 4), max_size=2),
        st.one_of(st.none(), st.binary(max_size=40)),
    ),
    max_size=3,
)


@given(model=st.sampled_from(["decode", "embedding", "", "nope"]), inputs=INPUTS, said=PARAMETERS)
@settings(max_examples=150)
async def test_nothing_that_a_client_sends_is_a_bug_of_ours(
    opened: control.DoorStatus, model: str, inputs: list[Any], said: dict[str, Any]
) -> None:
    request = pb.ModelInferRequest(model_name=model)
    request.parameters["max_tokens"].int64_param = 2
    for name, value in said.items():
        if isinstance(value, float):
            request.parameters[name].double_param = value
        else:
            set_parameter(request.parameters[name], value)
    for name, datatype, shape, raw in inputs:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        if raw is not None:
            request.raw_input_contents.append(raw)
    async with grpc.aio.insecure_channel(opened.grpc) as channel:
        method: Any = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        call = method(request.SerializeToString())
        code = await call.code()

    assert code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, await call.details()


@pytest.mark.parametrize("method", ["ModelInfer", "ServerReady", "ModelStreamInfer"])
async def test_what_is_no_message_is_refused_like_any_mistake(
    opened: control.DoorStatus, method: str
) -> None:
    async with grpc.aio.insecure_channel(opened.grpc) as channel:
        if method == "ModelStreamInfer":
            stream: Any = channel.stream_stream(f"/{SERVICE}/{method}")()
            await stream.write(b"\xff\xff")
            answer = pb.ModelStreamInferResponse.FromString(await stream.read())
            assert answer.error_message.startswith("[invalid_request]")
            stream.cancel()
            return
        call: Any = channel.unary_unary(f"/{SERVICE}/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_health_and_reflection(opened: control.DoorStatus) -> None:
    async with grpc.aio.insecure_channel(opened.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == answer.SERVING

    def reflect() -> tuple[list[str], Any]:
        with grpc.insecure_channel(opened.grpc) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            names = list(database.get_services())
            return names, database.FindFileContainingSymbol(SERVICE)

    names, described = await asyncio.to_thread(reflect)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(names)
    assert described.package == "inference"


async def test_only_this_machine_reaches_it(opened: control.DoorStatus) -> None:
    host, _, port = opened.grpc.rpartition(":")
    assert host == "127.0.0.1"
    outside = socket.socket()
    try:
        outside.settimeout(1)
        others = {
            info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
        }
        for address in others - {"127.0.0.1"}:
            assert outside.connect_ex((str(address), int(port))) != 0
    finally:
        outside.close()


async def test_the_cluster_is_measured_at_its_http_door(
    opened: control.DoorStatus, client: Any, cluster: LiveCluster
) -> None:
    since = cluster.watcher.mark()
    await client.infer("decode", [text("abc")], parameters={"max_tokens": 3})
    await cluster.watcher.event(RequestOutcome, since=since, served_by="s1", n_tokens=3)

    async def scrape() -> Callable[..., float | None]:
        async with httpx.AsyncClient() as http:
            response = await http.get(f"{opened.http}/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        families = list(text_string_to_metric_families(response.text))
        samples = [sample for family in families for sample in family.samples]

        def value(name: str, **labels: str) -> float | None:
            values = [
                one.value
                for one in samples
                if one.name == name and labels.items() <= one.labels.items()
            ]
            return sum(values) if values else None

        return value

    value = await scrape()
    # The ingress hears of it over the broker as we do, perhaps a moment later.
    for _ in range(200):
        served = value("anyserve_time_to_first_token_seconds_count", capability="decode")
        told = value("vllm:num_requests_running", engine="h1", model_name="decode.heavy")
        if served and told is not None:  # h1, which has nothing to do, tells of itself now and then
            break
        await asyncio.sleep(0.05)
        value = await scrape()
    assert value("anyserve_time_to_first_token_seconds_count", capability="decode")
    assert value("anyserve_ingress_open_requests") == 0
    assert value("anyserve_ingress_ready") == 1
    assert value("anyserve_events_missing") == 0
    assert value("anyserve_metrics_dropped_payloads_total") == 0
    # Said before the ingress was there to hear it:
    assert value("anyserve_replica_state", replica="s1", state="ready") == 1
    assert value("anyserve_replica_slots", replica="n1") == 1
    assert value("anyserve_scheduler_epoch") == 1
    assert value("vllm:num_requests_running", engine="h1", model_name="decode.heavy") is not None
