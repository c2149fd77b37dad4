"""One process's view of its host's objects."""

from __future__ import annotations

import fcntl
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from anyserve.core.objects import ObjRef
from anyserve.core.spec import ObjectsSpec
from anyserve.errors import InvalidRequestError, ObjectError
from anyserve.runtime.objects.directory import (
    linked_object_directory,
    new_object_directory,
    remove_linked,
    remove_object_directory,
)
from anyserve.runtime.objects.layout import HEADER_BYTES, entry_of, is_object_id
from anyserve.runtime.objects.store import ObjectStore

TTL_MS = 1_000


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory() -> Iterator[Path]:
    made = new_object_directory()
    yield made
    remove_object_directory(made)


@pytest.fixture
def store(directory: Path, clock: Clock) -> ObjectStore:
    rules = ObjectsSpec(limit_bytes=10 * HEADER_BYTES, ttl_ms=TTL_MS)
    return ObjectStore(directory, rules, now_ms=clock)


def code_of(caught: pytest.ExceptionInfo[ObjectError]) -> str:
    return caught.value.code


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"bytes",
        bytearray(b"more"),
        "text with ü",
        {"a": [1, None, "x"]},
        None,
        3.5,
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.arange(6.0).reshape(2, 3).T,
        np.zeros((0, 4), dtype=np.float16),
        np.array(7),
        np.array(["ab", "c"]),
        np.array([True, False]),
        np.array(["2026-11-27"], dtype="datetime64[D]"),
        np.arange(3, dtype=">u2"),
    ],
    ids=repr,
)
def test_what_was_put_comes_back(store: ObjectStore, value: Any) -> None:
    ref = store.put(value)
    found = store.get(ref, verify=True)

    if isinstance(value, np.ndarray):
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert np.array_equal(found, value)
    else:
        assert found == value
    assert store.lookup(ref.id) == ref
    assert msgspec.json.decode(msgspec.json.encode(ref), type=ObjRef) == ref


def test_an_array_is_a_view_of_the_mapped_file(store: ObjectStore, directory: Path) -> None:
    ref = store.put(np.arange(100, dtype=np.uint8))
    array = store.get(ref)

    assert not array.flags.writeable
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    (path,) = [path for path in directory.iterdir() if path.name.startswith(ref.id)]
    with path.open("r+b") as file:  # nobody does this; it shows that nothing was copied
        file.seek(HEADER_BYTES)
        file.write(b"\xff")
    assert array[0] == 255
    data = store.get(store.put(b"abc"))
    assert (data.readonly, bytes(data)) == (True, b"abc")


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()]),
        np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
        np.zeros(2, dtype="V3"),
        {"a": object()},
        lambda: 3,
    ],
    ids=["objects", "records", "void", "nested", "function"],
)
def test_what_would_need_pickle_is_refused(store: ObjectStore, value: Any) -> None:
    with pytest.raises(InvalidRequestError):
        store.put(value)
    assert store.used_bytes() == 0


def test_objects_expire(store: ObjectStore, clock: Clock) -> None:
    short, long = store.put(b"a", ttl_ms=10), store.put(b"b")
    clock.now_ms += 10

    with pytest.raises(ObjectError) as caught:
        store.get(short)
    assert code_of(caught) == "object_gone"
    assert store.lookup(short.id) is None
    assert not store.has(short)
    assert store.get(long) == b"b"
    store.put(b"c")  # makes room, though there would be some
    assert store.used_bytes() == 2 * (HEADER_BYTES + 1)


def test_the_oldest_make_room_and_mapped_ones_stay(store: ObjectStore, clock: Clock) -> None:
    refs = []
    for number in range(4):
        refs.append(store.put(bytes([number]) * HEADER_BYTES))
        clock.now_ms += 1
    kept = store.get(refs[0])
    store.put(b"x" * 3 * HEADER_BYTES)

    assert [store.has(ref) for ref in refs] == [True, False, True, True]
    assert bytes(kept[:2]) == b"\0\0"
    del kept
    gc.collect()
    store.put(b"y" * HEADER_BYTES)
    assert not store.has(refs[0])


def test_what_can_never_fit_is_refused_and_costs_nobody(store: ObjectStore) -> None:
    ref = store.put(b"small")
    with pytest.raises(ObjectError) as caught:
        store.put(b"x" * 10 * HEADER_BYTES)

    assert code_of(caught) == "objects_full"
    assert "the limit of this host is 40960 bytes" in caught.value.message
    assert store.has(ref)


def test_a_full_store_of_mapped_objects_says_so(store: ObjectStore) -> None:
    held = [store.get(store.put(b"x" * HEADER_BYTES)) for _ in range(5)]
    with pytest.raises(ObjectError, match="no room"):
        store.put(b"y")
    assert len(held) == 5


def test_a_writer_s_bytes_count_before_it_is_done(store: ObjectStore, directory: Path) -> None:
    part = directory / f"part.{'a' * 32}.0"
    with part.open("wb") as file:
        file.truncate(9 * HEADER_BYTES)
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ObjectError, match="no room"):
            store.put(b"x" * HEADER_BYTES)
    store.put(b"x" * HEADER_BYTES)  # its writer has died: what it left is removed
    assert not part.exists()


@pytest.mark.parametrize("where", [0, HEADER_BYTES + 1])
def test_damage_is_noticed(store: ObjectStore, directory: Path, where: int) -> None:
    ref = store.put(b"hello")
    (path,) = [path for path in directory.iterdir() if path.name.startswith(ref.id)]
    with path.open("r+b") as file:
        file.seek(where)
        file.write(b"X")

    with pytest.raises(ObjectError) as caught:
        store.get(ref, verify=True)
    assert code_of(caught) == "object_damaged"


def test_a_reference_that_lies_is_noticed(store: ObjectStore) -> None:
    ref = store.put(np.arange(4))
    lies: list[dict[str, Any]] = [{"size": 3}, {"digest": "0" * 64}]
    for wrong in lies:
        with pytest.raises(ObjectError, match="not what its reference says"):
            store.get(msgspec.structs.replace(ref, **wrong))
    misfits: list[dict[str, Any]] = [{"dtype": "O"}, {"shape": (5,)}, {"dtype": "nonsense"}]
    for wrong in misfits:
        with pytest.raises(ObjectError, match="no array of"):
            store.get(msgspec.structs.replace(ref, **wrong))


@pytest.mark.parametrize("text", ["", "../../etc/passwd", "a" * 31, "A" * 32, "a" * 32 + "/x"])
def test_only_ids_stand_in_paths(store: ObjectStore, text: str) -> None:
    ref = msgspec.structs.replace(store.put(b"x"), id=text)

    assert not is_object_id(text)
    assert store.lookup(text) is None
    with pytest.raises(ObjectError):
        store.get(ref)
    assert entry_of(f"{text}.1.2", 3) is None


def test_a_copy_is_kept_only_if_it_is_the_real_thing(store: ObjectStore, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    other = ObjectStore(tmp_path, store.rules, now_ms=store._now_ms)
    ref = other.put(b"payload")
    with pytest.raises(ObjectError, match="not what its reference says"):
        store.keep_copy(ref, b"payloae")
    assert (store.has(ref), store.used_bytes()) == (False, 0)

    store.keep_copy(ref, b"payload")
    store.keep_copy(ref, b"payload")  # two workers may bring it at once
    assert store.get(ref) == b"payload"
    assert store.used_bytes() == HEADER_BYTES + 7


def test_only_a_private_directory_is_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(ObjectError, match="not a private directory"):
        ObjectStore(tmp_path)
    with pytest.raises(ObjectError, match="cannot be used"):
        ObjectStore(tmp_path / "absent")


def test_the_private_directory_leads_to_the_objects_and_takes_them_along(tmp_path: Path) -> None:
    directory = linked_object_directory(tmp_path)

    assert linked_object_directory(tmp_path) == directory
    assert directory.stat().st_mode & 0o777 == 0o700
    ref = ObjectStore(directory).put(b"x")
    assert ref.home == directory.name.rpartition("-")[2]
    remove_linked(tmp_path)
    assert not directory.exists()
    with pytest.raises(ObjectError):
        ObjectStore(directory)


def test_a_store_whose_cluster_has_ended_says_so(store: ObjectStore, directory: Path) -> None:
    remove_object_directory(directory)
    with pytest.raises(ObjectError, match="its cluster has ended"):
        store.put(b"x")


def test_nothing_else_is_ever_removed(tmp_path: Path) -> None:
    (tmp_path / "objects").symlink_to(Path.home())
    remove_linked(tmp_path)
    remove_object_directory(tmp_path)

    assert tmp_path.exists()
    assert Path.home().exists()
