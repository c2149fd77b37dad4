"""The heap of what is to happen: against sorting."""

from __future__ import annotations

import random

import pytest

from anyserve.sim.agenda import Agenda, Call, Entry, Line


def entry(time_ns: int, place: int) -> Entry:
    return Entry(time_ns, place, Call(print), None)


def when(one: Entry) -> tuple[int, int]:
    return one.time_ns, one.place


def test_entries_leave_by_time_and_then_by_place() -> None:
    agenda = Agenda()
    for time_ns, place in ((3, 1), (2, 9), (3, -4), (2, 2), (1, 7)):
        agenda.put(entry(time_ns, place))

    first = agenda.first
    left = [when(agenda.take()) for _ in range(5)]

    assert first is not None
    assert when(first) == left[0]
    assert left == [(1, 7), (2, 2), (2, 9), (3, -4), (3, 1)]
    assert agenda.first is None


@pytest.mark.parametrize("span_bits", [0, 2, 4, 30])
def test_the_first_one_is_at_hand_whatever_came_and_went(span_bits: int) -> None:
    rng, agenda, there = random.Random(7), Agenda(span_bits), list[tuple[int, int]]()
    for place in range(2_000):
        if there and rng.random() < 0.45:
            there.sort()
            assert when(agenda.take()) == there.pop(0)
        else:
            time_ns = rng.randrange(50)
            there.append((time_ns, place))
            agenda.put(entry(time_ns, place))
        first = agenda.first
        assert (None if first is None else when(first)) == min(there, default=None)


@pytest.mark.parametrize("span_bits", [0, 2, 4, 30])
def test_all_that_was_not_withdrawn_leaves_in_order(span_bits: int) -> None:
    rng, agenda = random.Random(11), Agenda(span_bits)
    entries = [entry(rng.randrange(400), place) for place in range(1_000)]
    for one in entries:
        agenda.put(one)
    for one in rng.sample(entries, 700):
        one.withdraw()

    left = []
    while agenda.first is not None:
        one = agenda.take()
        if not one.withdrawn:
            left.append(when(one))
    assert left == sorted(when(one) for one in entries if not one.withdrawn)


def test_a_line_keeps_its_order_however_it_grows() -> None:
    rng, line, there, place = random.Random(3), Line(), list[tuple[int, int]](), 0
    for longest in (3, 200, 5, 900, 0):
        while len(there) != longest or rng.random() < 0.9:
            if len(there) < longest:
                place += 1
                there.append((place // 2, place))
                line.put(entry(place // 2, place))
            elif there:
                assert line.first is not None
                assert when(line.first) == there.pop(0)
                line.drop_first()
            else:
                break
    assert line.first is None

    line.put(entry(1, 1))
    line.clear()
    assert line.first is None
