"""The object plane's data and its one rule: which objects make room for a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

OBJECT_ID = r"[0-9a-f]{32}"


class ObjRef(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Names a large payload that lives outside the messages. Small enough to travel in one.

    `size` is in bytes, `digest` is the BLAKE3 of exactly these bytes (hexadecimal). `expires_ms` is
    wall clock: from then on the object may be gone. `home` names the store that made it, `url`
    tells where other hosts get a copy (empty: nowhere). `dtype` and `shape` are set for arrays. By
    `seal` other hosts know that their own cluster made this; nobody else tells them whom to ask.
    """

    id: str
    size: int
    digest: str
    content_type: str
    created_ms: int
    expires_ms: int
    home: str = ""
    url: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    seal: str = ""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> dict[str, Any]:
        """So that pydantic models may hold references, without pydantic being needed here."""
        return {
            "type": "function-plain",
            "function": {"type": "no-info", "function": cls._validated},
            "serialization": {"type": "function-plain", "function": msgspec.to_builtins},
        }

    @classmethod
    def _validated(cls, value: Any) -> ObjRef:
        return msgspec.convert(value, cls)  # a ValueError where it does not fit, as pydantic wants


class Entry(msgspec.Struct, frozen=True):
    """One object as a store counts it; `size` is what it takes, in bytes."""

    id: str
    size: int
    created_ms: int
    expires_ms: int


def choose_victims(
    entries: Iterable[Entry],
    *,
    limit: int,
    need: int,
    now_ms: int,
    pinned: Callable[[Entry], bool],
) -> tuple[list[Entry], bool]:
    """What to remove so that `need` more bytes stay within `limit`, and whether that is enough.

    All that has expired goes, then the oldest, until it fits. What somebody has mapped (`pinned`)
    stays: removing it would free nothing. If even that is not enough, only what has expired goes.
    """
    kept = sorted(entries, key=lambda entry: (entry.created_ms, entry.id))
    used = sum(entry.size for entry in kept)
    expired = [one for one in kept if one.expires_ms <= now_ms and not pinned(one)]
    used -= sum(entry.size for entry in expired)
    if used + need <= limit:
        return expired, True
    gone = {entry.id for entry in expired}
    oldest: list[Entry] = []
    for entry in kept:
        if entry.id in gone or pinned(entry):
            continue
        oldest.append(entry)
        used -= entry.size
        if used + need <= limit:
            return expired + oldest, True
    return expired, False
