"""Faults of a node's own connection, as its control socket asks for them."""

from __future__ import annotations

import logging
import random

from anyserve.errors import UsageError
from anyserve.runtime.bus.disturbance import Disturbance
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.node_control import ConnectionFault

_LOG = logging.getLogger(__name__)


class Disturber:
    """Carries them out on one bus. They end with the process: its next life is undisturbed."""

    def __init__(self, bus: MqttBus, rng: random.Random) -> None:
        self._bus = bus
        self._disturbance = Disturbance(rng)

    def act(self, fault: ConnectionFault) -> None:
        """Begin it or end it.

        Raises:
            UsageError: a share outside 0 to 1, or a time below 0.
        """
        _check(fault)
        _LOG.warning("fault on our connection: %s", fault)
        wanted = self._disturbance
        match fault.kind:
            case "partition":
                (self._bus.cut if fault.on else self._bus.uncut)()
            case "drop":
                wanted.drop = fault.share if fault.on else 0.0
            case "duplicate":
                wanted.duplicate = fault.share if fault.on else 0.0
            case "delay":
                wanted.delay_s = fault.by_s if fault.on else 0.0
                wanted.jitter_s = fault.jitter_s if fault.on else 0.0
        if not wanted.idle:
            self._bus.disturb(wanted)


def _check(fault: ConnectionFault) -> None:
    if not 0 <= fault.share <= 1 or fault.by_s < 0 or fault.jitter_s < 0:
        raise UsageError(
            "a share is 0 to 1, and a delay is not negative",
            code="bad_disturbance",
            hint="anyserve control --help",
        )
