"""`GrpcDoor`: listens, guards, says whether it is healthy, and closes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection, reflection_pb2

from anyserve.core.spec import IngressSpec
from anyserve.errors import StartError
from anyserve.runtime.ingress.front import Front, FrontState
from anyserve.runtime.ingress.http.keys import ApiKeys
from anyserve.runtime.ingress.meanings import RefusedError
from anyserve.runtime.ingress.oip import inference_pb2 as pb
from anyserve.runtime.ingress.oip.errors import abort
from anyserve.runtime.ingress.oip.service import SERVICE, InferenceService

HEALTH: Final = "grpc.health.v1.Health"
CLOSE_S: Final = 1.0
"""How long calls that are under way have, once the door closes."""
_FOLLOW_S: Final = 0.1
_PINGS_MS: Final = 10_000
_OPEN: Final = frozenset(
    {f"/{HEALTH}/Check", f"/{HEALTH}/Watch", f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady"}
)
"""What probes call; they have no key."""


class GrpcDoor:
    """Serves a front at `host:port` (0: a free port), over TLS where the settings say so."""

    def __init__(self, front: Front, keys: ApiKeys, port: int) -> None:
        self._front = front
        self._settings = front.settings
        self._port = port
        self._keys = keys
        self._server: grpc.aio.Server | None = None
        self._health = health.HealthServicer()
        self._follow: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listen; returns `host:port`.

        Raises:
            StartError: the address is taken or not ours, or the certificate cannot be read.
        """
        limits = self._settings.limits
        server = grpc.aio.server(
            interceptors=[_Guard(self._keys, self._front)],
            maximum_concurrent_rpcs=limits.connections,
            options=[
                ("grpc.max_receive_message_length", limits.body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.header_bytes),
                ("grpc.absolute_max_metadata_size", limits.header_bytes),
                ("grpc.max_connection_idle_ms", limits.idle_ms),
                ("grpc.keepalive_time_ms", limits.stall_ms),
                ("grpc.keepalive_timeout_ms", limits.stall_ms),
                # Clients may ask whether we live; by default they are thrown out for it.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", _PINGS_MS),
                # Two processes on one port would share its connections unseen.
                ("grpc.so_reuseport", 0),
            ],
        )
        server.add_generic_rpc_handlers((InferenceService(self._front).handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server, pool=_described())
        host = self._settings.host
        try:
            port = self._listen(server, f"[{host}]" if ":" in host else host)
        except RuntimeError:
            message = f"cannot listen at {host}:{self._port}"
            hint = "take another port, or 0 for a free one"
            raise StartError(message, code="ingress_port", hint=hint) from None
        await server.start()
        self._server = server
        await self._say(self._front.state)
        self._follow = asyncio.create_task(self._follow_state(), name="grpc-health")
        return f"{host}:{port}"

    async def close(self, grace_s: float = CLOSE_S) -> None:
        """Stop listening, let calls that are under way end within `grace_s`, cut off the rest."""
        if self._follow is not None:
            self._follow.cancel()
            self._follow = None
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(grace_s)
            self._server = None

    def _listen(self, server: grpc.aio.Server, host: str) -> int:
        credentials = _credentials(self._settings)
        if credentials is None:
            return server.add_insecure_port(f"{host}:{self._port}")
        return server.add_secure_port(f"{host}:{self._port}", credentials)

    async def _follow_state(self) -> None:
        """Tell those who watch the health when the front's state changes."""
        known = self._front.state
        while True:
            await asyncio.sleep(_FOLLOW_S)
            if self._front.state is not known:
                known = self._front.state
                await self._say(known)

    async def _say(self, state: FrontState) -> None:
        status = health_pb2.HealthCheckResponse.ServingStatus
        now = status.SERVING if state is FrontState.READY else status.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, now)


class _Guard(grpc.aio.ServerInterceptor):
    """Lets in who has a key."""

    def __init__(self, keys: ApiKeys, front: Front) -> None:
        self._keys = keys
        self._front = front

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """The call's handler, or one that refuses."""
        handler = await continuation(details)
        if handler is None or details.method in _OPEN or not self._keys.required:
            return handler
        given = {str(name): value for name, value in details.invocation_metadata or ()}
        try:
            self._keys.check(_text(given.get("authorization")), _text(given.get("x-api-key")))
        except RefusedError as refusal:
            self._front.note_refused(refusal)
            return _refusing(handler, refusal)
        return handler


def _refusing(handler: Any, refusal: RefusedError) -> Any:
    async def refuse(_request: Any, context: Any) -> None:
        await abort(context, refusal)

    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make = kinds[handler.request_streaming, handler.response_streaming]
    return make(refuse, handler.request_deserializer, handler.response_serializer)


def _text(value: str | bytes | None) -> str | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _credentials(settings: IngressSpec) -> grpc.ServerCredentials | None:
    if settings.tls_certificate is None:
        return None
    certificate = Path(settings.tls_certificate).expanduser()
    key = certificate if settings.tls_key is None else Path(settings.tls_key).expanduser()
    try:
        # gRPC itself says only on stderr what it does not like.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            certificate, key, password=lambda: ""
        )
        pair = (key.read_bytes(), certificate.read_bytes())
    except (OSError, ssl.SSLError) as error:
        message = f"cannot use the certificate {certificate}: {error.strerror or error}"
        hint = "a PEM file, with its unencrypted private key inside or in tls.key"
        raise StartError(message, code="ingress_tls", hint=hint) from None
    return grpc.ssl_server_credentials([pair])


def _described() -> DescriptorPool:
    """What reflection tells: all three services, in a pool of their own."""
    pool = DescriptorPool()
    for described in (pb.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        pool.AddSerializedFile(described.serialized_pb)
    return pool
