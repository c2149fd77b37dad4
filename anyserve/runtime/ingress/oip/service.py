"""The calls of `inference.GRPCInferenceService`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from anyserve import __version__
from anyserve.runtime.engines.base import Task
from anyserve.runtime.ingress.directory import Route
from anyserve.runtime.ingress.front import Front, FrontState
from anyserve.runtime.ingress.meanings import RefusedError, invalid
from anyserve.runtime.ingress.oip import inference_pb2 as pb
from anyserve.runtime.ingress.oip.answers import pieces, whole
from anyserve.runtime.ingress.oip.asking import (
    PAYLOAD,
    VERSION,
    check_version,
    find_task,
    read_request,
)
from anyserve.runtime.ingress.oip.errors import abort, broken_off
from anyserve.runtime.ingress.openai.asking import Wishes

_LOG = logging.getLogger(__name__)
SERVICE: Final = "inference.GRPCInferenceService"
EXTENSIONS: Final = ("parameters", "schedule_policy", "model_stream_infer")
PER_STREAM: Final = 64
"""Requests of one stream that run at once; the next one is read when one of them ends."""
UNSENT: Final = 64
"""Responses of one stream that wait to be sent; then its requests wait, and their frames pile up
to the front's bound."""

Context = grpc.aio.ServicerContext[Any, Any]
_Tensor = pb.ModelMetadataResponse.TensorMetadata


class InferenceService:
    """Answers from one `Front`."""

    def __init__(self, front: Front) -> None:
        self._front = front

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server serves."""
        unary: dict[str, tuple[Callable[..., Awaitable[Any]], type[Any]]] = {
            "ServerLive": (self.server_live, pb.ServerLiveRequest),
            "ServerReady": (self.server_ready, pb.ServerReadyRequest),
            "ModelReady": (self.model_ready, pb.ModelReadyRequest),
            "ServerMetadata": (self.server_metadata, pb.ServerMetadataRequest),
            "ModelMetadata": (self.model_metadata, pb.ModelMetadataRequest),
            "ModelInfer": (self.model_infer, pb.ModelInferRequest),
        }
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(
                self._refusing(method),
                request_deserializer=_reader(kind),
                response_serializer=_serialize,
            )
            for name, (method, kind) in unary.items()
        }
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self.model_stream_infer,
            request_deserializer=_reader(pb.ModelInferRequest),
            response_serializer=_serialize,
        )
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def server_live(self, _request: pb.ServerLiveRequest, _context: Context) -> Any:
        """The process answers."""
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, _request: pb.ServerReadyRequest, _context: Context) -> Any:
        """New requests are taken."""
        return pb.ServerReadyResponse(ready=self._front.state is FrontState.READY)

    async def model_ready(self, request: pb.ModelReadyRequest, _context: Context) -> Any:
        """Requests for this model are taken; a name that nobody knows is not ready."""
        try:
            route = self._route(request.name, request.version)
        except RefusedError:
            return pb.ModelReadyResponse(ready=False)
        offered = route.engine is not None or self._front.directory.is_handled(route.capability)
        ready = self._front.state is FrontState.READY and offered
        return pb.ModelReadyResponse(ready=ready)

    async def server_metadata(self, _request: pb.ServerMetadataRequest, _context: Context) -> Any:
        """Who we are."""
        return pb.ServerMetadataResponse(
            name="anyserve", version=__version__, extensions=EXTENSIONS
        )

    async def model_metadata(self, request: pb.ModelMetadataRequest, _context: Context) -> Any:
        """The inputs and outputs of a model."""
        check_version(request.version)
        route, task = find_task(self._front, _ANYHOW, request.name)
        inputs, outputs = _TENSORS[task]
        return pb.ModelMetadataResponse(
            name=request.name or route.model,
            versions=[VERSION],
            platform="anyserve",
            inputs=[_tensor(*one) for one in inputs],
            outputs=[_tensor(*one) for one in outputs],
        )

    async def model_infer(self, request: pb.ModelInferRequest, context: Context) -> Any:
        """One request, its whole answer."""
        return await whole(self._front, await read_request(self._front, request, _left_ms(context)))

    async def model_stream_infer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> None:
        """Requests as they come, side by side, each with the pieces of its answer.

        One that fails ends with a response that says why; the others go on.
        """
        unsent: asyncio.Queue[pb.ModelStreamInferResponse | None] = asyncio.Queue(UNSENT)
        free = asyncio.Semaphore(PER_STREAM)

        async def serve(request: pb.ModelInferRequest) -> None:
            try:
                await self._serve_one(request, context, unsent)
            finally:
                free.release()

        async def read() -> None:
            async with asyncio.TaskGroup() as group:
                async for request in requests:
                    if request is _UNREADABLE:
                        refusal = invalid("what came is no message of this call")
                        self._front.note_refused(refusal)
                        await unsent.put(broken_off(pb.ModelInferRequest(), refusal))
                        continue
                    await free.acquire()
                    group.create_task(serve(request))
            await unsent.put(None)

        # When the client leaves, this task is cancelled, and with it both groups and their calls.
        async with asyncio.TaskGroup() as both:
            both.create_task(read())
            while (response := await unsent.get()) is not None:
                await context.write(response)

    async def _serve_one(
        self,
        request: pb.ModelInferRequest,
        context: Context,
        unsent: asyncio.Queue[pb.ModelStreamInferResponse | None],
    ) -> None:
        try:
            asked = await read_request(self._front, request, _left_ms(context))
            # Closed for sure, so that a client that leaves cancels its request at once.
            async with aclosing(pieces(self._front, asked)) as answer:
                async for piece in answer:
                    await unsent.put(pb.ModelStreamInferResponse(infer_response=piece))
        except RefusedError as refusal:
            self._front.note_refused(refusal)
            await unsent.put(broken_off(request, refusal))
        except Exception:  # noqa: BLE001 - the boundary of one request
            _LOG.exception("a bug of ours, in a stream")
            await unsent.put(broken_off(request, _internal()))

    def _route(self, model: str, version: str) -> Route:
        check_version(version)
        return self._front.directory.route(model=model or None)

    def _refusing(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The method, with its errors in gRPC's words."""

        async def call(request: Any, context: Context) -> Any:
            try:
                if request is _UNREADABLE:
                    raise invalid("what came is no message of this call")  # noqa: TRY301
                return await method(request, context)
            except RefusedError as refusal:
                self._front.note_refused(refusal)
                await abort(context, refusal)
            except Exception:  # noqa: BLE001 - the boundary of one call
                _LOG.exception("a bug of ours, in a call")
                await abort(context, _internal())

        return call


_ANYHOW: Final = Wishes(None, None, 0, None, None, None)
_PROMPTS: Final = [("text_input", "BYTES", 1), ("input_ids", "INT64", -1)]
_OPTIONS: Final = [("sampling_parameters", "BYTES", 1), ("stream", "BOOL", 1)]
_TEXT: Final = [("text_output", "BYTES", -1), ("output_ids", "INT64", -1)]
_TENSORS: Final = {
    Task.GENERATE: (_PROMPTS + _OPTIONS, _TEXT),
    Task.EMBED: (_PROMPTS, [("embedding", "FP32", -1)]),
    Task.HANDLE: ([(PAYLOAD, "BYTES", 1), ("stream", "BOOL", 1)], [("result", "BYTES", -1)]),
}
"""Name, type and size of inputs and outputs, by who answers."""


def _tensor(name: str, datatype: str, size: int) -> _Tensor:
    return _Tensor(name=name, datatype=datatype, shape=[size])


def _left_ms(context: Context) -> int | None:
    """What the call's own deadline leaves."""
    left_s: Any = context.time_remaining()  # None without a deadline, whatever its stub says
    return None if left_s is None else max(1, int(left_s * 1000))


def _internal() -> RefusedError:
    return RefusedError("a bug of ours; the log of the ingress says more", code="internal")


_UNREADABLE: Final = object()


def _reader(kind: type[Any]) -> Callable[[bytes], Any]:
    """Reads a message; what is none must not look like a bug of ours, as gRPC makes it."""

    def read(data: bytes) -> Any:
        try:
            return kind.FromString(data)
        except DecodeError:
            return _UNREADABLE

    return read


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
