"""How engines on a CPU get their memory, and what they give back."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

from anyserve.runtime.engines.allocator import allocator_settings

OURS = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:"
    "glibc.malloc.trim_threshold=1073741824"
)


def test_the_heap_asks_for_large_pages_and_keeps_them() -> None:
    assert allocator_settings({"PATH": "/bin"}) == {"GLIBC_TUNABLES": OURS}


def test_what_the_user_has_set_is_kept() -> None:
    given = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0:glibc.malloc.check=3"}
    found = allocator_settings(given)["GLIBC_TUNABLES"]

    assert found.startswith("glibc.malloc.hugetlb=0:glibc.malloc.check=3:glibc.malloc.mmap")
    assert found.count("hugetlb") == 1
    assert allocator_settings({"GLIBC_TUNABLES": OURS}) == {}


LOADS = """
import ctypes, json
from pathlib import Path
from anyserve.runtime.engines.allocator import give_back

libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
MIB = 1 << 20

def resident():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss")) // 1024

def tensors(count, size):
    blocks = [libc.malloc(size) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    return blocks

blocks = tensors(16, 8 * MIB)
loaded, end = resident(), max(blocks)
for block in blocks[::2]:
    libc.free(block)
give_back()
left = resident()
print(json.dumps({"loaded": loaded, "left": left, "behind": min(tensors(10, MIB)) > end}))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own ways")
def test_what_loading_leaves_is_given_back_and_its_holes_are_not_used_again() -> None:
    """Much of the half that was freed goes back (some pages of 2 MiB hold a block's first bytes),
    and the tensors of steps do not lie there."""
    environ = {**os.environ, **allocator_settings(os.environ)}
    done = subprocess.run(
        [sys.executable, "-c", LOADS], env=environ, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)

    assert found["loaded"] - found["left"] > 24
    assert found["behind"]
