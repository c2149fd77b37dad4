"""What a disturbed connection does to messages: lost, doubled, late, never out of order."""

from __future__ import annotations

import asyncio
import random
from functools import partial

from anyserve.runtime.bus.disturbance import Disturbance, Way

TOPIC = "anyserve/c/sched/in"


def disturbance() -> Disturbance:
    return Disturbance(random.Random(7))


def carry(wanted: Disturbance, count: int, *, topic: str = TOPIC, way: Way = Way.OUT) -> list[int]:
    passed: list[int] = []
    for number in range(count):
        wanted.carry(way, topic, partial(passed.append, number))
    return passed


async def test_without_a_fault_all_pass_at_once() -> None:
    wanted = disturbance()
    assert carry(wanted, 5) == [0, 1, 2, 3, 4]
    assert wanted.idle


async def test_a_share_is_lost_and_the_rest_keeps_its_order() -> None:
    wanted = disturbance()
    wanted.drop = 0.3
    passed = carry(wanted, 1000)
    assert passed == sorted(passed)
    assert 1000 - len(passed) == wanted.dropped
    assert 250 < wanted.dropped < 350


async def test_a_share_arrives_twice_one_after_the_other() -> None:
    wanted = disturbance()
    wanted.duplicate = 0.5
    passed = carry(wanted, 1000)
    assert sorted(set(passed)) == list(range(1000))
    assert passed == sorted(passed)
    assert len(passed) - 1000 == wanted.duplicated
    assert 430 < wanted.duplicated < 570


async def test_late_messages_keep_their_order_also_when_the_delay_ends() -> None:
    wanted = disturbance()
    wanted.delay_s, wanted.jitter_s = 0.01, 0.02
    passed: list[int] = []
    done = asyncio.Event()

    def arrive(number: int) -> None:
        passed.append(number)
        if number == 49:
            done.set()

    for number in range(50):
        if number == 40:
            wanted.delay_s = wanted.jitter_s = 0.0
        wanted.carry(Way.IN, TOPIC, partial(arrive, number))
    assert passed == []
    async with asyncio.timeout(10):
        await done.wait()
    assert passed == list(range(50))
    assert wanted.idle


async def test_reports_to_observers_are_spared() -> None:
    wanted = disturbance()
    wanted.drop = 1.0
    assert carry(wanted, 3, topic="anyserve/c/event/s1") == [0, 1, 2]
    assert carry(wanted, 3) == []


async def test_what_is_on_its_way_at_the_end_is_lost() -> None:
    wanted = disturbance()
    wanted.delay_s = 60.0
    passed = carry(wanted, 3)
    wanted.close()
    assert passed == []
    assert not any(lane.waiting for lane in wanted._ways.values())
