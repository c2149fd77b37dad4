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
_HOLES: Final = [1 << power for power in range(24, 13, -1)]
"""Sizes that are looked for, in bytes: smaller holes hold no tensors."""
_MOST_HOLES: Final = 4096
"""Of one size: a bound, where the C library is not what we think."""


def allocator_settings(env: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment that an engine's process is started with. What the user has
    set there is kept."""
    given = [one for one in env.get(_VARIABLE, "").split(":") if one]
    named = {one.partition("=")[0] for one in given}
    ours = [f"{name}={value}" for name, value in _SETTINGS.items() if name not in named]
    return {_VARIABLE: ":".join(given + ours)} if ours else {}


def give_back() -> None:
    """Return what only loading needed: the C library would keep it (90 MB of a small model).

    What is returned lies between the weights. There the C library would put the tensors of the next
    steps, hole after hole, and the system would clear their pages anew: 10 to 30 ms a step.
    So the holes are closed, with blocks that nobody writes to: steps then take turns in what lies
    behind the weights.
    """
    with contextlib.suppress(OSError, AttributeError):  # only glibc has these
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        _close_holes(libc)


def _close_holes(libc: ctypes.CDLL) -> None:
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.sbrk.argtypes = [ctypes.c_ssize_t]
    for size in _HOLES:
        for _ in range(_MOST_HOLES):
            end = libc.sbrk(0)
            block = libc.malloc(size)
            if block is None or block > end or libc.sbrk(0) != end:
                libc.free(block)  # it was no hole
                break
