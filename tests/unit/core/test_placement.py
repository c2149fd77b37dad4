"""What each engine gets, by example; the rules in general are in tests/property."""

from __future__ import annotations

import pytest

from anyserve.core.messages import Offer
from anyserve.core.placement import GpuInfo, Placement, is_gpu_count, plan_placement
from anyserve.core.spec import EngineSpec, ReplicaSpec
from anyserve.errors import MissingDependencyError, StartError, UsageError

GIB = 1 << 30
A10 = 24 * GIB


def replicas(**gpus: float) -> list[ReplicaSpec]:
    return [
        ReplicaSpec(id=name, offers=(Offer(capability="decode"),), engine=EngineSpec(gpus=count))
        for name, count in gpus.items()
    ]


def machine(count: int, memory: int = A10, free: int | None = None) -> list[GpuInfo]:
    left = memory - GIB // 4 if free is None else free
    return [GpuInfo(index, memory, left, "NVIDIA A10") for index in range(count)]


def visible(placement: Placement) -> dict[str, str]:
    return {name: devices.visible for name, devices in placement.devices.items()}


def test_two_halves_share_a_gpu_and_a_whole_one_is_alone() -> None:
    placed = plan_placement(replicas(s1=0.5, s2=0.5, h1=1), machine(2))

    assert visible(placed) == {"h1": "0", "s1": "1", "s2": "1"}
    shares = {name: devices.memory_share for name, devices in placed.devices.items()}
    assert shares == {"h1": 0.9, "s1": 0.45, "s2": 0.45}


def test_tensor_parallel_gets_that_many_whole_gpus() -> None:
    placed = plan_placement(replicas(small=0.3, large=2), machine(3))

    assert visible(placed) == {"large": "0,1", "small": "2"}
    assert placed.devices["large"].share == 1.0


def test_fractions_fill_gpus_from_the_largest_on() -> None:
    placed = plan_placement(replicas(a=0.3, b=0.5, c=0.4, d=0.6), machine(2))

    assert visible(placed) == {"a": "1", "b": "1", "c": "0", "d": "0"}


def test_numbers_are_those_of_the_machine() -> None:
    gpus = [GpuInfo(5, A10, A10), GpuInfo(3, A10, A10)]

    assert visible(plan_placement(replicas(a=1, b=1), gpus)) == {"a": "5", "b": "3"}
    assert visible(plan_placement(replicas(a=2), gpus)) == {"a": "5,3"}


def test_ten_tenths_are_one_gpu() -> None:
    ids = {f"r{n}": 0.1 for n in range(10)}
    assert set(visible(plan_placement(replicas(**ids), machine(1))).values()) == {"0"}


def test_what_asks_for_nothing_gets_nothing() -> None:
    assert plan_placement(replicas(c=0), machine(1)) == Placement()
    assert plan_placement([], []) == Placement()
    assert plan_placement(replicas(c=0), machine(1)).of("c") is None


@pytest.mark.parametrize(
    ("engines", "gpus", "share", "places"),
    [
        (1, 1, 1.0, ["0"]),
        (4, 1, 0.25, ["0", "0", "0", "0"]),
        (3, 2, 0.5, ["0", "1", "0"]),
        (2, 4, 1.0, ["0", "1"]),
    ],
)
def test_engines_that_ask_for_none_share_evenly(
    engines: int, gpus: int, share: float, places: list[str]
) -> None:
    wanted = replicas(**{f"r{n}": 0 for n in range(engines)})
    placed = plan_placement(wanted, machine(gpus), share_rest=True)

    assert [placed.devices[one.id].visible for one in wanted] == places
    assert {devices.share for devices in placed.devices.values()} == {share}


def test_the_rest_gets_what_the_others_leave() -> None:
    placed = plan_placement(replicas(a=0.4, b=0, c=0, h=1), machine(2), share_rest=True)

    assert visible(placed) == {"h": "0", "a": "1", "b": "1", "c": "1"}
    assert {placed.devices[name].share for name in "bc"} == {0.3}


def test_the_rest_is_content_with_what_other_programs_leave() -> None:
    half_taken = machine(1, free=12 * GIB)
    (devices,) = plan_placement(replicas(a=0), half_taken, share_rest=True).devices.values()

    assert 11.4 * GIB < devices.memory_share * A10 <= 11.5 * GIB


def test_a_small_gpu_keeps_more_for_cuda() -> None:
    small = machine(1, memory=8 * GIB)
    placed = plan_placement(replicas(a=0.5, b=0.5), small)

    # 8 GiB less 0.75 for each of two engines, and half of that.
    assert {one.memory_share for one in placed.devices.values()} == {0.4062}


def test_what_does_not_fit_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(StartError) as refused:
        plan_placement(replicas(s1=0.5, s2=0.5, h1=0.25), machine(1))

    assert (refused.value.code, refused.value.exit_code) == ("gpu_memory", 3)
    for part in (
        "s1 0.5 + s2 0.5 + h1 0.25 = 1.25 of 1",
        "no room for h1",
        "GPU 0 (NVIDIA A10, 23.8 of 24.0 GiB free): s1 0.5 + s2 0.5 = 1 placed",
    ):
        assert part in refused.value.message
    assert "smaller shares" in refused.value.hint


def test_memory_that_others_hold_is_taken() -> None:
    with pytest.raises(StartError, match=r"h1 1 = 1 of 1; no room for h1; .*20\.0 of 24\.0 GiB"):
        plan_placement(replicas(h1=1), machine(1, free=20 * GIB))
    busy, idle = GpuInfo(0, A10, 2 * GIB), GpuInfo(1, A10, A10)
    assert visible(plan_placement(replicas(h1=1), [busy, idle])) == {"h1": "1"}


def test_too_few_whole_gpus_are_refused_and_all_without_room_are_named() -> None:
    with pytest.raises(StartError, match=r"6\.5 of 2; no room for large, half;"):
        plan_placement(replicas(large=4, whole=1, half=0.5, other=1), machine(2))


def test_a_rest_without_room_is_refused() -> None:
    with pytest.raises(StartError, match="and a share each for c; no room for c"):
        plan_placement(replicas(h=1, c=0), machine(1), share_rest=True)


def test_no_gpu_at_all_is_a_missing_dependency() -> None:
    with pytest.raises(MissingDependencyError, match="s1, h1 need GPUs") as refused:
        plan_placement(replicas(s1=0.5, c=0, h1=1), [])
    assert (refused.value.code, refused.value.exit_code) == ("no_gpu", 5)
    with pytest.raises(MissingDependencyError, match="c needs a GPU"):
        plan_placement(replicas(c=0), [], share_rest=True)


@pytest.mark.parametrize("gpus", [1.5, -1, float("nan"), float("inf"), 0.001])
def test_numbers_that_nobody_can_give_are_refused(gpus: float) -> None:
    assert not is_gpu_count(gpus)
    with pytest.raises(UsageError, match="asks for"):
        plan_placement(replicas(a=gpus), machine(8))
