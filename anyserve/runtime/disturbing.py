"""Faults of a node's own connection, as its control socket asks for them."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

from anyserve.core.spec import GIVE_UP_NS
from anyserve.errors import UsageError
from anyserve.runtime.bus.disturbance import Disturbance, Way
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.node_control import ConnectionFault

_LOG = logging.getLogger(__name__)
GIVE_UP_S: Final = GIVE_UP_NS / 1e9


class Disturber:
    """Carries them out on one bus. They end with the process: its next life is undisturbed."""

    def __init__(self, bus: MqttBus, rng: random.Random) -> None:
        self._bus = bus
        self._disturbance = Disturbance(rng)
        self._giving_up: asyncio.TimerHandle | None = None

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
                (self._silence if fault.on else self._heal)()
            case "drop":
                wanted.drop = fault.share if fault.on else 0.0
            case "duplicate":
                wanted.duplicate = fault.share if fault.on else 0.0
            case "delay":
                wanted.delay_s = fault.by_s if fault.on else 0.0
                wanted.jitter_s = fault.jitter_s if fault.on else 0.0
        if not wanted.idle:
            self._bus.disturb(wanted)

    def _silence(self) -> None:
        """Messages wait both ways, as in TCP's buffers, until somebody gives the connection up."""
        if self._giving_up is None and not self._disturbance.held:
            self._disturbance.hold()
            loop = asyncio.get_running_loop()
            self._giving_up = loop.call_later(GIVE_UP_S, self._give_up)

    def _give_up(self) -> None:
        """Both ends do: what was to come is lost, what was to go is the connection's to repeat."""
        self._giving_up = None
        self._bus.cut()
        self._disturbance.release(lost=(Way.IN,))

    def _heal(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None
            self._disturbance.release()
        self._bus.uncut()


def _check(fault: ConnectionFault) -> None:
    if not 0 <= fault.share <= 1 or fault.by_s < 0 or fault.jitter_s < 0:
        raise UsageError(
            "a share is 0 to 1, and a delay is not negative",
            code="bad_disturbance",
            hint="anyserve control --help",
        )
