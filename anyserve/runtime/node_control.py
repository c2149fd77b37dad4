"""What a node can be asked on the control socket that its supervisor gave it.

The bus is not the way for this: a node whose connection is cut must still hear how long.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from anyserve.errors import UsageError
from anyserve.runtime.control import Request

Kind = Literal["partition", "drop", "duplicate", "delay"]
MAX_RATE: Final = 1000.0


class ConnectionFault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happens to a connection. `on` False: it ends.

    partition: it is cut and cannot be made. drop, duplicate: a `share` (0 to 1) of the messages of
    both directions is lost, or arrives twice. delay: all arrive `by_s` later, and up to `jitter_s`
    more, in order.
    """

    kind: Kind
    on: bool = True
    share: float = 0.0
    by_s: float = 0.0
    jitter_s: float = 0.0


class DisturbNode(Request, frozen=True, tag="disturb"):
    """Do it to the node's connection."""

    how: ConnectionFault


class RateNode(Request, frozen=True, tag="rate"):
    """The player offers the rest of its plan `factor` times as fast; 0 pauses it."""

    factor: float


NodeRequest = DisturbNode | RateNode


def check_rate(factor: float) -> None:
    """Refuse what is no rate.

    Raises:
        UsageError: it is negative, endless or absurd.
    """
    if not math.isfinite(factor) or not 0 <= factor <= MAX_RATE:
        raise UsageError(
            f"{factor:g} is no rate of the traffic",
            code="bad_rate",
            hint=f"1 is what the scenario plans, 0 pauses, {MAX_RATE:g} is the most",
        )
