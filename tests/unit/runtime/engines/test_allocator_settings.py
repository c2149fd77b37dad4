from __future__ import annotations

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
