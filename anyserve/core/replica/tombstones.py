"""Cancels that came before what they cancel, kept a while and in bounded number."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

MAX_TOMBSTONES: Final = 10_000

Key = TypeVar("Key")


class Tombstones(Generic[Key]):
    """Keys with the time they were put; the oldest go first."""

    def __init__(self) -> None:
        self._since: dict[Key, int] = {}

    def put(self, key: Key, now: int) -> None:
        """Remember a key; beyond the bound the oldest is forgotten."""
        self._since[key] = now
        if len(self._since) > MAX_TOMBSTONES:
            del self._since[next(iter(self._since))]

    def __bool__(self) -> bool:
        return bool(self._since)

    def __contains__(self, key: Key) -> bool:
        return key in self._since

    def pop(self, key: Key) -> bool:
        """Forget a key; whether it was there."""
        return bool(self._since) and self._since.pop(key, None) is not None

    def expire(self, before_ns: int) -> None:
        """Forget what was put before this time."""
        for key in [key for key, since in self._since.items() if since < before_ns]:
            del self._since[key]
