"""A broker that somebody else runs: check at the start what can be checked, and warn by name.

Two settings ruin a run without any error: a broker that delays small packets answers every
request 40 ms late, and a broker with short queues drops messages that it has acknowledged. The
first can be measured; of the second we can only say what to set.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Final

from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.proof import measure_round_trips, prove_permissions
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.base import Bus

_ROUND_TRIPS: Final = 25
_COUNTED: Final = 5  # the last ones: Linux acknowledges the first packets of a connection at once
# Nagle's algorithm against delayed acknowledgements costs 40 ms on Linux, round trip after round
# trip; a distant broker varies and has a lower bound that TCP's own handshake shares.
STALL_FROM_S: Final = 0.038
STALL_TO_S: Final = 0.060

STALL_WARNING: Final = (
    "the broker answers in {round_trip_ms:.0f} ms, as one that delays small packets: "
    "in mosquitto.conf write `set_tcp_nodelay true`; other brokers call it TCP_NODELAY"
)
QUEUE_WARNING: Final = (
    "the broker's queue limits cannot be seen from here, and mosquitto's defaults drop "
    "acknowledged messages when a reader is slow: in mosquitto.conf write "
    "`max_queued_messages 0` and `max_inflight_messages 0`"
)


@dataclass(frozen=True, slots=True)
class BrokerCheck:
    """What was found out about an external broker; `warnings` are sentences for people."""

    round_trip_s: float
    warnings: tuple[str, ...]


async def check_external_broker(bus: Bus, rules: AccessRules, role: Role) -> BrokerCheck:
    """Prove the role's permissions, measure the round trip, and warn of what ruins a run.

    `bus` is started; `role` is one that publishes.

    Raises:
        StartError: the broker denies what the role needs.
    """
    await prove_permissions(bus, rules, role)
    times_s = await measure_round_trips(bus, rules, role, count=_ROUND_TRIPS)
    round_trip_s = statistics.median(times_s[-_COUNTED:])
    return BrokerCheck(round_trip_s, warnings_for(round_trip_s))


def warnings_for(round_trip_s: float) -> tuple[str, ...]:
    """The warnings that a median round trip of a QoS 1 loop-back calls for."""
    stalls = STALL_FROM_S <= round_trip_s <= STALL_TO_S
    stall = (STALL_WARNING.format(round_trip_ms=1e3 * round_trip_s),) if stalls else ()
    return (*stall, QUEUE_WARNING)
