"""What messages have in common with events and with the specification of a cluster.

A module of its own, because these are encoded in simulations too, where messages are not
(`anyserve/compiled/plain.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Part(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Base of these parts."""


class Limits(Part, frozen=True):
    """What one replica can take for a capability; None means no limit.

    `max_tokens`: prompt plus requested tokens, the engine's context length.
    """

    max_tokens: int | None = None


class Offer(Part, frozen=True):
    """One capability a replica registers."""

    capability: str
    attributes: Mapping[str, str] = {}
    limits: Limits = Limits()


class Load(Part, frozen=True):
    """What a replica says of itself with every credit; policies read it.

    `waiting` counts its entry queue, `kv_usage` is 0..1, `service_ms` an EWMA of a request's time
    in a slot, `tokens_per_s` since the last report.
    """

    running: int = 0
    waiting: int = 0
    kv_usage: float | None = None
    service_ms: float | None = None
    tokens_per_s: float = 0.0


class Times(Part, frozen=True):
    """Durations of an attempt at its replica, on that host's clock, in nanoseconds.

    received -> (queue) -> given to the engine -> (engine wait) -> scheduled -> (prefill) -> first
    token -> (decode) -> end. Their sum is the attempt's whole stay.
    """

    received_ns: int
    queue_ns: int = 0
    engine_wait_ns: int = 0
    prefill_ns: int = 0
    decode_ns: int = 0
