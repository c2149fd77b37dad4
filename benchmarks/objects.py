"""The object plane: putting a large array and mapping it again, against a plain copy of it.

    python benchmarks/objects.py [--mib N] [--rounds N]

Each round copies the array with numpy into fresh memory (what the plane could cost at best), puts
it, and maps it in another process, which touches nothing by that. Then that process reads every
byte once from the mapping, and once from memory of its own. The two are as a handler and the one
that it calls. A get that copied would take about as long as the copy.
Writes benchmarks/results/objects.json.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing as mp
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from bench import report

from anyserve.core.objects import ObjRef
from anyserve.core.spec import ObjectsSpec
from anyserve.runtime.objects.directory import new_object_directory, remove_object_directory
from anyserve.runtime.objects.store import ObjectStore

MIB = 1 << 20
TIMES = ("copied_s", "put_s", "mapped_s", "read_s", "own_s")


def reader(directory: Path, rules: ObjectsSpec, pipe: Connection) -> None:
    """In the other process: map what it is told, and say how long that took, in seconds."""
    store = ObjectStore(directory, rules)
    while (ref := pipe.recv()) is not None:
        gc.collect()
        begun = time.perf_counter()
        array = store.get(ref)
        mapped_s = time.perf_counter() - begun
        begun = time.perf_counter()
        total = int(array.sum(dtype=np.uint64))
        read_s = time.perf_counter() - begun
        own = array.copy()
        begun = time.perf_counter()
        assert int(own.sum(dtype=np.uint64)) == total
        own_s = time.perf_counter() - begun
        del array, own
        pipe.send((mapped_s, read_s, own_s, total))


def copy_s(array: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> float:
    """Seconds of a plain copy into fresh memory."""
    begun = time.perf_counter()
    copied = array.copy()
    took = time.perf_counter() - begun
    assert copied[-1] == array[-1]
    return took


def measure(mib: int, rounds: int) -> list[dict[str, float]]:
    directory = new_object_directory()
    rules = ObjectsSpec(limit_bytes=3 * mib * MIB)
    ours, theirs = mp.Pipe()
    other = mp.Process(target=reader, args=(directory, rules, theirs), daemon=True)
    other.start()
    store = ObjectStore(directory, rules)
    rows = []
    try:
        for number in range(rounds + 1):
            array = np.random.default_rng(number).integers(0, 255, mib * MIB, dtype=np.uint8)
            copied_s = min(copy_s(array) for _ in range(3))
            begun = time.perf_counter()
            ref: ObjRef = store.put(array)
            put_s = time.perf_counter() - begun
            ours.send(ref)
            mapped_s, read_s, own_s, total = ours.recv()
            assert total == int(array.sum(dtype=np.uint64))
            if number:  # the first one warms everything up
                times = (copied_s, put_s, mapped_s, read_s, own_s)
                rows.append(dict(zip(TIMES, times, strict=True)))
        ours.send(None)
        other.join()
    finally:
        remove_object_directory(directory)
    return rows


def summary(
    name: str, mib: int, rows: list[dict[str, float]], fold: Callable[[list[float]], float]
) -> dict[str, object]:
    """One line of the table. `best` is what the machine can do while nothing else disturbs it."""
    copy, put, get, read, own = (fold([row[key] for row in rows]) for key in TIMES)
    return {
        "of all": name,
        "MiB": mib,
        "copy ms": round(copy * 1e3, 2),
        "put ms": round(put * 1e3, 2),
        "get us": round(get * 1e6, 1),
        "(put+get)/copy": round((put + get) / copy, 3),
        "get/copy": round(get / copy, 5),
        "read mapped/own": round(read / own, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows = measure(options.mib, options.rounds)
    table = [summary("best", options.mib, rows, min)]
    table.append(summary("median", options.mib, rows, statistics.median))
    report("objects", f"{options.mib} MiB through the object plane, {len(rows)} rounds", table)


if __name__ == "__main__":
    main()
