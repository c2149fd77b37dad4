"""From the `ingress` section to what opens the doors."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from anyserve.core.spec import IngressLimits, IngressSpec, ModelRoute
from anyserve.workload.schema import Ingress
from anyserve.workload.schema.ingress import IngressLimits as LimitsSection

_NS_PER_MS: Final = 1_000_000
_KIB: Final = 2**10


def ingress_spec(section: Ingress, directory: Path) -> IngressSpec:
    """The doors of a scenario; its files lie relative to `directory`."""
    keys, tls = section.api_keys, section.tls
    return IngressSpec(
        host=section.host,
        http_port=section.http,
        grpc_port=section.grpc,
        replica_http_port=section.replicas.http,
        replica_grpc_port=section.replicas.grpc,
        models={
            name: ModelRoute(capability=model.capability, attributes=model.attributes)
            for name, model in section.models.items()
        },
        generate=section.defaults.generate,
        embed=section.defaults.embed,
        timeout_ms=None if section.timeout is None else _ms(section.timeout),
        api_keys_env=None if keys is None else keys.env,
        api_keys_file=None if keys is None else _path(keys.file, directory),
        tls_certificate=None if tls is None else _path(tls.certificate, directory),
        tls_key=None if tls is None else _path(tls.key, directory),
        drain_ms=section.drain // _NS_PER_MS,
        limits=_limits(section.limits),
    )


def _limits(section: LimitsSection) -> IngressLimits:
    return IngressLimits(
        body_bytes=section.body_kib * _KIB,
        header_bytes=section.header_kib * _KIB,
        connections=section.connections,
        open_requests=section.open_requests,
        unread_frames=section.unread_frames,
        header_ms=_ms(section.header_wait),
        body_ms=_ms(section.body_wait),
        idle_ms=_ms(section.idle),
        stall_ms=_ms(section.stall),
    )


def _path(name: str | None, directory: Path) -> str | None:
    return None if name is None else str(directory / Path(name).expanduser())


def _ms(duration_ns: int) -> int:
    return max(1, duration_ns // _NS_PER_MS)
