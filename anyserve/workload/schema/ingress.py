"""The `ingress` section: the front doors for clients."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from anyserve.workload.schema.types import (
    CAPABILITY_PATTERN,
    SECOND,
    Attributes,
    CapabilityName,
    Duration,
    PositiveDuration,
    Section,
)

HTTP_PORT: Final = 8000
Port = Annotated[int, Field(ge=0, le=65535)]


class Model(Section):
    """What a model name stands for."""

    capability: CapabilityName
    """The capability that is asked for."""
    attributes: Attributes = Field(default_factory=dict)
    """What the replica must offer with it."""


class _NameOrMapping:
    """Tells editors that the name of a capability will do."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"oneOf": [{"type": "string", "pattern": CAPABILITY_PATTERN}, handler(core)]}


def _model(value: object) -> object:
    """A capability's name is short for a mapping with that capability."""
    return {"capability": value} if isinstance(value, str) else value


ModelName = Annotated[str, Field(min_length=1, max_length=512)]
NamedModel = Annotated[Model, BeforeValidator(_model), _NameOrMapping()]


class ReplicaDoors(Section):
    """The same doors in every replica's process: what enters there is offered to that replica."""

    http: Port | None = None
    """HTTP port of the first replica, the next ones count up; 0 takes free ones."""
    grpc: Port | None = None
    """The same for gRPC."""


class Defaults(Section):
    """What is asked for by requests that name neither capability nor model."""

    generate: CapabilityName | None = None
    """Of chats and completions; default the first capability that generates."""
    embed: CapabilityName | None = None
    """Of embeddings; default the first capability that embeds."""


class ApiKeys(Section):
    """Who may come in. The keys themselves never stand in this file."""

    env: str | None = Field(default=None, min_length=1, max_length=256)
    """A variable that holds them, with commas between."""
    file: str | None = Field(default=None, min_length=1, max_length=4096)
    """A file that holds them, one a line; relative to this file."""


class Tls(Section):
    """A certificate makes it HTTPS."""

    certificate: str = Field(min_length=1, max_length=4096)
    """A PEM file, relative to this file."""
    key: str | None = Field(default=None, min_length=1, max_length=4096)
    """Its private key, where the certificate's file does not hold it."""


class IngressLimits(Section):
    """What a client may send, hold and delay."""

    body_kib: int = Field(default=4096, ge=1, le=8192)
    """Size of a request's body in KiB."""
    header_kib: int = Field(default=32, ge=1, le=1024)
    """Size of a request's head in KiB."""
    connections: int = Field(default=2048, ge=1, le=1_000_000)
    """Connections at once."""
    open_requests: int = Field(default=4096, ge=1, le=1_000_000)
    """Requests without an outcome; more are rejected (ingress_full)."""
    unread_frames: int = Field(default=4096, ge=16, le=1_000_000)
    """Parts of a stream (one an engine step and choice) that may wait for its reader; with more it
    is cut off (slow_client)."""
    header_wait: PositiveDuration = 10 * SECOND
    """How long a request's head may take to arrive."""
    body_wait: PositiveDuration = 30 * SECOND
    """How long its body may take."""
    idle: PositiveDuration = 75 * SECOND
    """How long a connection may do nothing."""
    stall: PositiveDuration = 30 * SECOND
    """How long a client may read nothing while more waits for it."""


class Ingress(Section):
    """Where clients come in: OpenAI's API over HTTP, the Open Inference Protocol over gRPC."""

    host: str = Field(default="127.0.0.1", min_length=1, max_length=253)
    """The address to listen at. Every other one than this machine's own opens it to others."""
    http: Port | None = HTTP_PORT
    """HTTP port; 0 takes a free one, null opens none."""
    grpc: Port | None = None
    """gRPC port; 0 takes a free one."""
    replicas: ReplicaDoors = ReplicaDoors()
    """Doors in the replicas' processes."""
    models: dict[ModelName, NamedModel] = Field(default_factory=dict)
    """Names that clients may give as `model`, beside those of engines and capabilities."""
    defaults: Defaults = Defaults()
    """For requests that name nothing."""
    timeout: PositiveDuration | None = None
    """Deadline of requests that bring none."""
    api_keys: ApiKeys | None = None
    """Who may come in; without it everybody who reaches the port."""
    tls: Tls | None = None
    """Encryption."""
    drain: Duration = 20 * SECOND
    """How long answers that are under way may go on after the wish to stop."""
    limits: IngressLimits = IngressLimits()
    """What a client may send, hold and delay."""
