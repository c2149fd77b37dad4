"""Which doors an ingress has. Each protocol is imported only where its door is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from anyserve.core.spec import IngressSpec
from anyserve.runtime.ingress.front import Door, Front
from anyserve.runtime.ingress.http.keys import load_keys

_MAX_NAME: Final = 32


def make_doors(
    front: Front, environ: Mapping[str, str], *, http_port: int | None, grpc_port: int | None
) -> dict[str, Door]:
    """The doors to open, by their names in `IngressOpened`.

    Raises:
        StartError: API keys are asked for and cannot be read.
    """
    doors: dict[str, Door] = {}
    keys = load_keys(front.settings, environ)
    if http_port is not None:
        from anyserve.runtime.ingress.http.app import HttpApp  # noqa: PLC0415 - uvicorn
        from anyserve.runtime.ingress.http.door import HttpDoor  # noqa: PLC0415

        doors["http"] = HttpDoor(HttpApp(front, keys), front.settings, http_port)
    if grpc_port is not None:
        from anyserve.runtime.ingress.oip.door import GrpcDoor  # noqa: PLC0415 - grpc

        doors["grpc"] = GrpcDoor(front, keys, grpc_port)
    return doors


def has_replica_doors(settings: IngressSpec) -> bool:
    """Whether the replicas open doors in their own processes."""
    return settings.replica_http_port is not None or settings.replica_grpc_port is not None


def has_cluster_doors(settings: IngressSpec) -> bool:
    """Whether an ingress process opens any."""
    return settings.http_port is not None or settings.grpc_port is not None


def replica_ports(settings: IngressSpec, place: int) -> tuple[int | None, int | None]:
    """HTTP and gRPC port of the replica at this place of the scenario; 0 stays 0."""
    first = (settings.replica_http_port, settings.replica_grpc_port)
    return _counted(first[0], place), _counted(first[1], place)


def door_name(replica: str) -> str:
    """The name of the origin inside a replica's process: another one for each, as topics allow."""
    name = f"in-{replica}"
    if len(name) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(replica.encode()).hexdigest()[:8]
    return f"{name[: _MAX_NAME - 9]}-{digest}"


def _counted(first: int | None, place: int) -> int | None:
    return first + place if first else first
