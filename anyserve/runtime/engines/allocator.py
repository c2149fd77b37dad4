"""How glibc hands out memory to an engine that computes on the CPU.

By its defaults glibc asks the system for every larger tensor and gives it back afterwards, so each
step of a prompt pays for pages that the system clears: 50 of them, 5 to 15 ms of a step of 65 ms.
And weights in pages of 4 KiB cost looks into the page table, 8 % of a step of SmolLM2-135M, more or
less from one life of a worker to the next. (vLLM's own advice is to preload tcmalloc.)
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Mapping
from typing import Final

_VARIABLE: Final = "GLIBC_TUNABLES"
_SETTINGS: Final = {
    "glibc.malloc.hugetlb": 1,  # large pages, where the system grants them on request
    "glibc.malloc.mmap_threshold": 32 << 20,  # smaller blocks stay in the heap; the most it takes
    "glibc.malloc.trim_threshold": 1 << 30,  # and the heap stays with the process
}


def allocator_settings(env: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment that an engine's process is started with. What the user has
    set there is kept."""
    given = [one for one in env.get(_VARIABLE, "").split(":") if one]
    named = {one.partition("=")[0] for one in given}
    ours = [f"{name}={value}" for name, value in _SETTINGS.items() if name not in named]
    return {_VARIABLE: ":".join(given + ours)} if ours else {}


def give_back() -> None:
    """Return what only loading needed: the C library would keep it (100 MB of a small model)."""
    with contextlib.suppress(OSError, AttributeError):  # only glibc has this
        ctypes.CDLL(None).malloc_trim(0)
