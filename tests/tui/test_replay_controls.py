"""Play, pause, seek and step through a recorded run."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from screens import (
    FACTS,
    NOW_S,
    PLAN,
    Clock,
    answer,
    press,
    recording,
    replay_app,
    shown,
    text_after,
)

from anyserve.telemetry.judge import Standing
from anyserve.telemetry.reducer import Reducer
from anyserve.tui.keys import Need
from anyserve.tui.replay import MEMORY, ReplayFeed, Rewind


def _feed(clock: Clock, at_s: float = 0.0, *, playing: bool = False) -> ReplayFeed:
    return ReplayFeed(recording(), PLAN, FACTS, clock, at_s=at_s, playing=playing)


def test_time_passes_at_the_speed_of_the_replay(clock: Clock) -> None:
    feed = _feed(clock, 10.0, playing=True)
    clock.now_s += 2.0
    assert feed.frame().run_s == pytest.approx(12.0)
    feed.set_speed(8.0)
    clock.now_s += 1.0
    assert feed.frame().run_s == pytest.approx(20.0)
    feed.toggle()
    clock.now_s += 100.0
    assert feed.frame().run_s == pytest.approx(20.0)


def test_it_stops_at_the_end_and_plays_again_from_the_start(clock: Clock) -> None:
    feed = _feed(clock, 59.0, playing=True)
    clock.now_s += 10.0
    frame = feed.frame()
    assert frame.ended
    assert frame.player is not None
    assert not frame.player.playing
    feed.toggle()
    assert feed.player.playing
    assert feed.player.at_s == 0.0


def test_steps_go_from_event_to_event_and_back(clock: Clock) -> None:
    feed = _feed(clock, 20.0, playing=True)
    before = feed.frame().snapshot.counters.events
    feed.step(1)
    assert feed.frame().snapshot.counters.events == before + 1
    feed.step(-1)
    assert feed.frame().snapshot.counters.events == before
    assert not feed.player.playing


def test_next_event_goes_to_what_is_notable(clock: Clock) -> None:
    feed = _feed(clock, 29.9)
    seen = []
    while feed.next_mark() and feed.player.at_s < 31:
        seen.append(feed.frame().snapshot.notices[-1].text)
    assert "fault: kill r5 (line 22)" in seen
    assert "r5 is lost: last will" in seen
    assert seen.index("fault: kill r5 (line 22)") < seen.index("r5 is lost: last will")


def test_phases_are_jumped_to_forwards_and_backwards(clock: Clock) -> None:
    feed = _feed(clock, 12.0)
    assert feed.phase(1)
    assert feed.player.at_s == 25.0
    assert feed.phase(-1)
    assert feed.player.at_s == 10.0
    assert feed.phase(-1)
    assert feed.player.at_s == 0.0
    feed.seek(50.0)
    assert not feed.phase(1)


def test_speeds_stay_within_their_bounds(clock: Clock) -> None:
    feed = _feed(clock)
    assert [feed.shift_speed(1) for _ in range(4)] == [2.0, 4.0, 8.0, 8.0]
    assert feed.shift_speed(1, around=True) == 0.25
    assert feed.shift_speed(-1) == 0.25


def test_seeking_beyond_the_ends_stays_at_them(clock: Clock) -> None:
    feed = _feed(clock)
    feed.seek(1e9)
    assert feed.player.at_s == recording().end_s
    feed.seek(-1e9)
    assert feed.player.at_s == recording().start_s == -5.0


def test_expectations_stand_as_they_stood_then(clock: Clock) -> None:
    feed = _feed(clock, 60.0)
    assert {one.standing for one in feed.frame().judged} == {Standing.MET}
    feed.seek(20.0)
    assert {one.standing for one in feed.frame().judged} == {Standing.HOLDING}


@settings(max_examples=20)
@given(places=st.lists(st.integers(0, len(recording().envelopes)), min_size=1, max_size=4))
def test_any_way_to_a_place_shows_what_a_fold_up_to_it_shows(places: list[int]) -> None:
    rewind = Rewind(recording(), every=97, most=10_000)
    for place in places:
        rewind.go(place)
    straight = Reducer(MEMORY)
    straight.apply_all(recording().envelopes[: places[-1]])
    assert rewind.reducer.snapshot() == straight.snapshot()
    assert rewind.index == places[-1]


def test_going_back_does_not_spoil_the_checkpoints() -> None:
    rewind = Rewind(recording(), every=100, most=10_000)
    rewind.go(500)
    at_500 = rewind.reducer.snapshot()
    for _ in range(2):
        rewind.go(310)
        rewind.go(len(recording().envelopes))
        rewind.go(500)
        assert rewind.reducer.snapshot() == at_500


async def test_the_keys_of_a_replay_do_what_they_say(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        assert "0:38 / 1:00" in await text_after(pilot)
        assert "0:28 / 1:00" in await text_after(pilot, "left_square_bracket")
        assert "0:38 / 1:00" in await text_after(pilot, "right_square_bracket")
        assert "0:25 / 1:00" in await text_after(pilot, "left_curly_bracket")
        assert "0:45 / 1:00" in await text_after(pilot, "right_curly_bracket")
        assert "▶ 1\N{MULTIPLICATION SIGN}" in await text_after(pilot, "space")
        assert "▶ 2\N{MULTIPLICATION SIGN}" in await text_after(pilot, "greater_than_sign")
        assert "❚❚ 2\N{MULTIPLICATION SIGN}" in await text_after(pilot, "space")
        assert "❚❚ 4\N{MULTIPLICATION SIGN}" in await text_after(pilot, "comma")


async def test_a_time_can_be_typed(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        await press(pilot, "S")
        await answer(pilot, "0:17")
        assert "0:17 / 1:00" in await text_after(pilot)
        await press(pilot, "S")
        await answer(pilot, "nine")
        assert "is no time of the run" in await text_after(pilot)
        await answer(pilot, "50%")
        assert "0:30 / 1:00" in await text_after(pilot)


async def test_nothing_can_be_steered_in_a_replay(clock: Clock) -> None:
    app = replay_app(clock)
    assert Need.CONTROL not in app.available
    async with shown(app) as pilot:
        before = app.screen
        for key in ("d", "x", "a", "r"):
            await press(pilot, key)
            assert app.screen is before
        assert "Fault" not in await text_after(pilot)
    assert NOW_S == 38.0
