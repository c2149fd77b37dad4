"""Cancels that came before what they cancel, kept a while and in bounded number."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

MAX_TOMBSTONES: Final = 10_000

Key = TypeVar("Key")


class Tombstones(Generic[Key]):
    """Keys with the time they were put; the oldest go first. Mostly there are none."""

    def __init__(self) -> None:
        self._since: dict[Key, int] | None = None

    def put(self, key: Key, now: int) -> None:
        """Remember a key; beyond the bound the oldest is forgotten."""
        if self._since is None:
            self._since = {}
        self._since[key] = now
        if len(self._since) > MAX_TOMBSTONES:
            del self._since[next(iter(self._since))]

    def __bool__(self) -> bool:
        return self._since is not None

    def __contains__(self, key: Key) -> bool:
        return self._since is not None and key in self._since

    def pop(self, key: Key) -> bool:
        """Forget a key; whether it was there."""
        if self._since is None:
            return False
        found = self._since.pop(key, None) is not None
        self._tidy()
        return found

    def expire(self, before_ns: int) -> None:
        """Forget what was put before this time."""
        if self._since is not None:
            self._since = {key: since for key, since in self._since.items() if since >= before_ns}
            self._tidy()

    def _tidy(self) -> None:
        if not self._since:
            self._since = None
