"""What the gRPC door asks of its clients, and how it closes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from live import LiveCluster, two_rungs
from msgspec.structs import replace

from anyserve.core.spec import IngressLimits, IngressSpec
from anyserve.errors import StartError
from anyserve.runtime.bus.address import Role
from anyserve.runtime.ingress.ingress import Ingress, IngressOptions
from anyserve.runtime.ingress.oip import inference_pb2 as pb
from anyserve.runtime.ingress.oip.service import SERVICE
from anyserve.runtime.process import boot_id

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[LiveCluster]:
    live = await LiveCluster(two_rungs()).up()
    yield live
    await live.close()


@asynccontextmanager
async def door(
    cluster: LiveCluster, environ: Mapping[str, str] | None = None, port: int = 0, **settings: Any
) -> AsyncIterator[tuple[Ingress, str]]:
    """One more ingress with a gRPC door, in this process; where it listens."""
    name = f"door-{uuid.uuid4().hex[:8]}"
    spec = replace(cluster.spec, ingress=IngressSpec(http_port=None, **settings))
    options = IngressOptions(
        cluster=spec,
        broker=cluster.record.broker,
        credential=cluster.record.role_credentials().of(Role.ORIGIN),
        prefix=cluster.record.prefix,
        name=name,
        incarnation=time.time_ns() // 1_000_000,
        boot=boot_id(),
        http_port=None,
        grpc_port=port,
        log_path=cluster.run_dir / f"origin-{name}.jsonl",
    )
    ingress = Ingress(options, environ or {})
    try:
        opened = await ingress.open()
        yield ingress, opened.grpc
    finally:
        await ingress.close()


def call(channel: grpc.aio.Channel, name: str, answer: Any) -> Any:
    return channel.unary_unary(
        f"/{SERVICE}/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )


def stream(channel: grpc.aio.Channel, metadata: Any = None) -> Any:
    method: Any = channel.stream_stream(
        f"/{SERVICE}/ModelStreamInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )
    return method(metadata=metadata)


async def read_all(running: Any) -> list[pb.ModelStreamInferResponse]:
    """What is left of a stream."""
    pieces: list[pb.ModelStreamInferResponse] = []
    while (piece := await running.read()) is not grpc.aio.EOF:
        pieces.append(piece)
    return pieces


def asking(words: str = "hello", tokens: int = 4) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="decode", id="1")
    given = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    given.contents.bytes_contents.append(words.encode())
    request.parameters["max_tokens"].int64_param = tokens
    return request


async def refusal(answer: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    return caught.value


async def test_without_a_key_only_probes_are_answered(cluster: LiveCluster) -> None:
    async with (
        door(cluster, {"KEYS": "right,other"}, api_keys_env="KEYS") as (ingress, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        infer = call(channel, "ModelInfer", pb.ModelInferResponse)
        wrong = (("authorization", "Bearer wrong"),)
        for metadata, code in ((None, "missing_api_key"), (wrong, "invalid_api_key")):
            error = await refusal(infer(asking(), metadata=metadata))
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            assert dict(error.trailing_metadata() or ())["anyserve-code"] == code
            assert "right" not in str(error)
        error = await refusal(stream(channel).read())
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        for metadata in ((("authorization", "Bearer right"),), (("x-api-key", "other"),)):
            answer = await infer(asking(), metadata=metadata)
            assert list(answer.outputs[0].contents.bytes_contents) == [b"hell"]

        live = await call(channel, "ServerLive", pb.ServerLiveResponse)(pb.ServerLiveRequest())
        assert live.live
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
        assert ingress.front.figures.refused["missing_api_key"] == 2


async def test_draining_refuses_what_is_new_and_finishes_what_is_open(
    cluster: LiveCluster,
) -> None:
    async with door(cluster) as (ingress, address), grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        running = stream(channel)
        await running.write(asking("x" * 40, tokens=40))
        first = await running.read()
        assert first.infer_response.outputs

        ingress.front.begin_drain()

        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        ready = await call(channel, "ServerReady", pb.ServerReadyResponse)(pb.ServerReadyRequest())
        live = await call(channel, "ServerLive", pb.ServerLiveResponse)(pb.ServerLiveRequest())
        assert (ready.ready, live.live) == (False, True)
        error = await refusal(call(channel, "ModelInfer", pb.ModelInferResponse)(asking()))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        metadata = dict(error.trailing_metadata() or ())
        assert metadata["anyserve-code"] == "draining"
        assert int(metadata["retry-after-ms"]) > 0
        await running.done_writing()
        rest = [first, *await read_all(running)]
        texts = [piece.infer_response.outputs[0].contents.bytes_contents[0] for piece in rest]
        assert b"".join(texts) == b"x" * 40
        assert rest[-1].infer_response.parameters["triton_final_response"].bool_param


async def test_a_stream_that_is_cut_off_says_why(cluster: LiveCluster) -> None:
    async with door(cluster) as (ingress, address), grpc.aio.insecure_channel(address) as channel:
        running = stream(channel)
        await running.write(asking("y" * 200, tokens=55))
        last = await running.read()
        await ingress.close()
        while not last.error_message:
            last = await running.read()

    assert last.error_message.startswith("[shutdown]")
    said = last.infer_response.parameters
    assert said["error_status"].string_param == "UNAVAILABLE"
    assert said["triton_final_response"].bool_param


async def test_what_is_larger_than_the_limit_is_not_read(cluster: LiveCluster) -> None:
    limits = IngressLimits(body_bytes=10_000)
    async with (
        door(cluster, limits=limits) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        error = await refusal(
            call(channel, "ModelInfer", pb.ModelInferResponse)(asking("x" * 20_000))
        )

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_too_many_open_requests_are_turned_away(cluster: LiveCluster) -> None:
    limits = IngressLimits(open_requests=1)
    async with (
        door(cluster, limits=limits) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        running = stream(channel)
        await running.write(asking("x" * 100, tokens=50))
        await running.read()
        error = await refusal(call(channel, "ModelInfer", pb.ModelInferResponse)(asking()))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(error.trailing_metadata() or ())["anyserve-code"] == "ingress_full"


async def test_a_port_that_is_taken_is_named(cluster: LiveCluster) -> None:
    async with door(cluster) as (_, address):
        port = int(address.rpartition(":")[2])
        with pytest.raises(StartError, match=f"cannot listen at 127.0.0.1:{port}"):
            async with door(cluster, port=port):
                pass


async def test_tls(cluster: LiveCluster, tmp_path: Path) -> None:
    key, certificate = await self_signed(tmp_path)
    async with door(cluster, tls_certificate=str(certificate), tls_key=str(key)) as (_, address):
        roots = grpc.ssl_channel_credentials(certificate.read_bytes())
        options = (("grpc.ssl_target_name_override", "localhost"),)
        async with grpc.aio.secure_channel(address, roots, options) as channel:
            answer = await call(channel, "ModelInfer", pb.ModelInferResponse)(asking())
        assert list(answer.outputs[0].contents.bytes_contents) == [b"hell"]


async def test_a_certificate_that_is_none_is_named(cluster: LiveCluster, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nothing")
    for path in (tmp_path / "absent.pem", tmp_path / "cert.pem"):
        with pytest.raises(StartError, match=path.name):
            async with door(cluster, tls_certificate=str(path)):
                pass


async def self_signed(folder: Path) -> tuple[Path, Path]:
    key, certificate = folder / "key.pem", folder / "cert.pem"
    made = await asyncio.create_subprocess_exec(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
        "-keyout", str(key), "-out", str(certificate),
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await made.wait() == 0
    return key, certificate
