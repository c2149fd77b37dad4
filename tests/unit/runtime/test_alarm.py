"""A machine is woken when it asked for, whatever its timer was set to before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anyserve.core.order import NEVER
from anyserve.runtime.alarm import Alarm


def test_the_timer_is_set_for_the_first_time_asked_for() -> None:
    alarm = Alarm()

    assert alarm.ask(50)
    assert alarm.rings_ns == 50
    assert alarm.ring(50)
    assert alarm.rings_ns == NEVER


def test_a_later_time_leaves_the_timer_as_it_is_until_it_rings() -> None:
    alarm = Alarm()
    alarm.ask(50)

    assert not alarm.ask(80)
    assert alarm.rings_ns == 50
    assert not alarm.ring(50)
    assert alarm.rings_ns == 80
    assert alarm.ring(80)


def test_an_earlier_time_sets_it_anew() -> None:
    alarm = Alarm()
    alarm.ask(50)

    assert alarm.ask(20)
    assert alarm.rings_ns == 20
    assert alarm.ring(20)


def test_what_is_cleared_rings_no_more() -> None:
    alarm = Alarm()
    alarm.ask(50)
    alarm.clear()

    assert alarm.rings_ns == NEVER
    assert alarm.ask(70)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(-5, 60)), max_size=30))
def test_each_wish_is_met_in_time_unless_another_came_before(asks: list[tuple[int, int]]) -> None:
    """`asks`: after how long each comes, and how far ahead it lies."""
    alarm, now = Alarm(), 0
    set_to: int | None = None
    wish: int | None = None
    for pause, ahead in [*asks, (200, 0)]:
        until = now + pause
        while set_to is not None and set_to <= until:
            now = max(now, set_to)
            if alarm.ring(now):
                assert wish is not None
                assert now >= wish
                wish = set_to = None
            else:
                set_to = alarm.rings_ns
                assert set_to > now
        assert wish is None or wish > until, "it was not woken in time"
        now = until
        wish = now + ahead
        if alarm.ask(wish):
            set_to = alarm.rings_ns
