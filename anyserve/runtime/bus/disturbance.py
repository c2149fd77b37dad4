"""Faults of one connection, acted out where it begins: messages lost, doubled, late.

It sits between a process and its own end of the connection, so it disturbs what this process says
and hears and nobody else. Messages keep their order in each direction, as on the one TCP connection
they travel on. What the process reports to observers is spared: the log of a disturbed run is
whole, or nothing could be said of it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final

SPARED: Final = "/event/"
"""Topics that hold this are left alone."""


class Way(Enum):
    """Where a message goes, seen from the process."""

    OUT = "out"
    IN = "in"


class Disturbance:
    """Decides over each message, and carries it at its time. All zero: all pass at once."""

    def __init__(self, rng: random.Random) -> None:
        self.drop = 0.0
        self.duplicate = 0.0
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.dropped = 0
        self.duplicated = 0
        self._rng = rng
        self._ways = {way: _Lane() for way in Way}

    @property
    def held(self) -> bool:
        """Whether nothing passes for now: it waits, as in the buffers of a silent connection."""
        return self._ways[Way.OUT].held

    def hold(self) -> None:
        """Let messages wait, both ways, in order."""
        for lane in self._ways.values():
            lane.held = True

    def release(self, *, lost: tuple[Way, ...] = ()) -> None:
        """Let what waited pass, but for the ways on which it is lost."""
        for way, lane in self._ways.items():
            lane.release(lost=way in lost)

    @property
    def idle(self) -> bool:
        """Nothing is disturbed, and nothing is on its way."""
        wanted = self.held or self.drop or self.duplicate or self.delay_s or self.jitter_s
        return not wanted and not any(lane.waiting for lane in self._ways.values())

    def carry(self, way: Way, topic: str, pass_on: Callable[[], None]) -> None:
        """Let a message pass: never, now, later, or twice."""
        if SPARED in topic:
            pass_on()
            return
        if self._rng.random() < self.drop:
            self.dropped += 1
            return
        copies = 1
        if self._rng.random() < self.duplicate:
            self.duplicated += 1
            copies = 2
        for _ in range(copies):
            late_s = self.delay_s + self.jitter_s * self._rng.random()
            self._ways[way].send(pass_on, late_s)

    def close(self) -> None:
        """What is still on its way is lost."""
        for lane in self._ways.values():
            lane.close()


class _Lane:
    """One direction: first in, first out, each not before its time."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self.held = False
        self._timer: asyncio.TimerHandle | None = None

    def release(self, *, lost: bool) -> None:
        self.held = False
        if lost:
            self.waiting.clear()
        if self.waiting:
            self._arm()

    def send(self, pass_on: Callable[[], None], late_s: float) -> None:
        if not self.waiting and late_s <= 0 and not self.held:
            pass_on()
            return
        due_s = asyncio.get_running_loop().time() + late_s
        if self.waiting:
            due_s = max(due_s, self.waiting[-1][0])
        self.waiting.append((due_s, pass_on))
        if not self.held:
            self._arm()

    def close(self) -> None:
        self.waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            return
        self._timer = asyncio.get_running_loop().call_at(self.waiting[0][0], self._pass_due)

    def _pass_due(self) -> None:
        self._timer = None
        now_s = asyncio.get_running_loop().time()
        while self.waiting and not self.held:
            if self.waiting[0][0] > now_s:
                self._arm()
                return
            self.waiting.popleft()[1]()
