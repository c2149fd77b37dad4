"""What came from the bus and was not looked at yet: bounded, because a cluster waits for nobody."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

HIGH_WATER_BYTES: Final = 16 * 2**20
AT_ONCE_BYTES: Final = 512 * 1024
_MARK: Final = b'"seq":'
"""Stands once in every event, so that what is dropped can be counted without reading it."""


class Inbox:
    """Payloads in order of arrival; above the high-water mark new ones are dropped and counted."""

    def __init__(self, high_water_bytes: int = HIGH_WATER_BYTES) -> None:
        self.dropped = 0
        """Events that were dropped so far."""
        self._high_water_bytes = high_water_bytes
        self._payloads: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._waiting = asyncio.Event()

    def put(self, topic: str, payload: bytes) -> None:
        """Take a message, or count it where there are too many."""
        if self._bytes + len(payload) > self._high_water_bytes:
            self.dropped += payload.count(_MARK)
            return
        self._payloads.append((topic, payload))
        self._bytes += len(payload)
        self._waiting.set()

    def wake(self) -> None:
        """Let whoever waits look up."""
        self._waiting.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when there is something, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._waiting.wait()
        except TimeoutError:
            return

    def take(self) -> list[tuple[str, bytes]]:
        """Some of what came: not more than a screen can fold between two key strokes."""
        taken: list[tuple[str, bytes]] = []
        size = 0
        while self._payloads and size < AT_ONCE_BYTES:
            topic, payload = self._payloads.popleft()
            taken.append((topic, payload))
            size += len(payload)
        self._bytes -= size
        if not self._payloads:
            self._waiting.clear()
        return taken
