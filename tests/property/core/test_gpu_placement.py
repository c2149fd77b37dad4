"""The planner's promises over any replicas and machines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from anyserve.core.messages import Offer
from anyserve.core.placement import GpuInfo, Placement, plan_placement
from anyserve.core.spec import EngineSpec, ReplicaSpec
from anyserve.errors import MissingDependencyError, StartError

GIB = 1 << 30
CUDA_BYTES = GIB // 2
"""What each engine takes beside its share."""

asks = st.one_of(
    st.sampled_from([0.0, 1.0, 2.0, 3.0]),
    st.integers(1, 99).map(lambda percent: percent / 100),
)
machines = st.lists(
    st.tuples(st.sampled_from([8, 24, 80]), st.sampled_from([0.1, 0.6, 0.97, 1.0])), max_size=4
)


def replicas_of(gpus: Sequence[float]) -> list[ReplicaSpec]:
    offer = (Offer(capability="decode"),)
    return [
        ReplicaSpec(id=f"r{n}", offers=offer, engine=EngineSpec(gpus=count))
        for n, count in enumerate(gpus)
    ]


def gpus_of(sizes: Sequence[tuple[int, float]]) -> list[GpuInfo]:
    return [GpuInfo(n, gib * GIB, int(gib * GIB * free)) for n, (gib, free) in enumerate(sizes)]


def plan(
    replicas: Sequence[ReplicaSpec], gpus: Sequence[GpuInfo], *, share_rest: bool
) -> Placement | None:
    try:
        return plan_placement(replicas, gpus, share_rest=share_rest)
    except (StartError, MissingDependencyError):
        return None


everything = given(st.lists(asks, max_size=8), machines, st.booleans())


@everything
def test_every_engine_gets_what_it_asks_for(
    counts: list[float], sizes: list[tuple[int, float]], share_rest: bool
) -> None:
    replicas = replicas_of(counts)
    placed = plan(replicas, gpus_of(sizes), share_rest=share_rest)
    if placed is None:
        return
    for replica in replicas:
        devices, asked = placed.of(replica.id), replica.engine.gpus
        if asked == 0 and not share_rest:
            assert devices is None
            continue
        assert devices is not None
        assert len(set(devices.indices)) == len(devices.indices) == max(1, int(asked))
        assert 0 < devices.memory_share < devices.share <= 1
        assert asked in {0, devices.share * len(devices.indices)}


@everything
def test_no_gpu_is_given_twice_and_all_shares_fit_its_free_memory(
    counts: list[float], sizes: list[tuple[int, float]], share_rest: bool
) -> None:
    gpus = gpus_of(sizes)
    placed = plan(replicas_of(counts), gpus, share_rest=share_rest)
    if placed is None:
        return
    users = defaultdict(list)
    for devices in placed.devices.values():
        for index in devices.indices:
            users[index].append(devices)
    for index, sharing in users.items():
        gpu = gpus[index]
        assert sum(one.share for one in sharing) <= 1 + 1e-6
        taken = sum(one.memory_share * gpu.memory_bytes + CUDA_BYTES for one in sharing)
        assert taken <= gpu.free_bytes + 1
        assert len(sharing) == 1 or all(one.share < 1 for one in sharing)


@given(st.lists(asks, max_size=8), machines, st.booleans(), st.randoms(use_true_random=False))
def test_the_same_is_planned_in_whatever_order_replicas_stand(
    counts: list[float], sizes: list[tuple[int, float]], share_rest: bool, rng: object
) -> None:
    replicas, gpus = replicas_of(counts), gpus_of(sizes)
    shuffled = list(replicas)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]

    first = plan(replicas, gpus, share_rest=share_rest)
    assert plan(shuffled, gpus, share_rest=share_rest) == first


@given(st.lists(asks.filter(bool), min_size=1, max_size=8), st.integers(0, 4))
def test_only_what_first_fit_decreasing_cannot_place_is_refused(
    counts: list[float], machines: int
) -> None:
    gpus = [GpuInfo(n, 1000 * GIB, 1000 * GIB) for n in range(machines)]
    left = [100] * machines
    fits = True
    for percent in sorted((round(count * 100) for count in counts), reverse=True):
        share, wanted = min(percent, 100), max(1, percent // 100)
        chosen = [n for n in range(machines) if left[n] >= share][:wanted]
        fits = fits and len(chosen) == wanted
        for n in chosen if len(chosen) == wanted else ():
            left[n] -= share

    assert (plan(replicas_of(counts), gpus, share_rest=False) is not None) == fits


@given(st.integers(1, 12), st.integers(1, 4), st.sampled_from([24, 80]))
def test_an_idle_machine_shared_evenly_loses_nothing(engines: int, count: int, gib: int) -> None:
    gpus = [GpuInfo(n, gib * GIB, gib * GIB) for n in range(count)]
    placed = plan(replicas_of([0.0] * engines), gpus, share_rest=True)

    assert placed is not None
    (share,) = {devices.share for devices in placed.devices.values()}
    per_gpu = -(-engines // count)
    assert 1 / per_gpu - 1e-4 <= share <= 1 / per_gpu
