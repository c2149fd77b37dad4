"""What a person can do to a live cluster, and what is asked before it is done."""

from __future__ import annotations

import pytest
from screens import Clock, Wishes, answer, live_app, notes, press, shown, text_after

from anyserve.errors import UsageError
from anyserve.tui.app import AnyServeApp
from anyserve.tui.keys import Need
from anyserve.tui.steering import parse_factor, parse_request


async def _settle(app: AnyServeApp) -> None:
    wishes = [worker for worker in app.workers if worker.group == "steering"]
    if wishes:
        await app.workers.wait_for_complete(wishes)


async def test_drain_and_resume_are_one_key(clock: Clock) -> None:
    wishes = Wishes()
    app = live_app(clock, wishes)
    async with shown(app) as pilot:
        await press(pilot, "d", "down", "d")
        await _settle(app)
    assert wishes.said == [("drain", "r1"), ("resume", "r2")]


async def test_a_kill_is_confirmed_first(clock: Clock) -> None:
    wishes = Wishes()
    app = live_app(clock, wishes)
    async with shown(app) as pilot:
        assert "fault at r1" in await text_after(pilot, "x")
        await press(pilot, "enter")
        assert "Requests there are recovered or fail" in await text_after(pilot)
        await press(pilot, "n")
        await _settle(app)
        assert wishes.said == []
        await press(pilot, "x", "j", "enter", "y")
        await _settle(app)
        assert wishes.said == [("kill", "r1.worker")]
        await press(pilot, "x", "j", "j", "enter", "y")
        await _settle(app)
        assert wishes.said[1:] == [("hang", "r1", 10.0)]
        await press(pilot, "x", *"jjjjjj", "enter", "y")
        await _settle(app)
        assert wishes.said[2:] == [("partition", "r1", 10.0)]


async def test_slow_asks_how_much(clock: Clock) -> None:
    wishes = Wishes()
    app = live_app(clock, wishes)
    async with shown(app) as pilot:
        await press(pilot, "x", "j", "j", "j", "j", "enter")
        await answer(pilot, "much")
        assert "is no factor" in await text_after(pilot)
        await answer(pilot, "3")
        await _settle(app)
    assert wishes.said == [("slow", "r1", 3.0)]


async def test_a_request_and_a_rate_are_typed(clock: Clock) -> None:
    wishes = Wishes()
    app = live_app(clock, wishes)
    async with shown(app) as pilot:
        await press(pilot, "a")
        await answer(pilot, "chat at r3")
        await _settle(app)
        assert "tui/1/1" in notes(app)
        await press(pilot, "r")
        await answer(pilot, "0")
        await _settle(app)
    assert wishes.said == [("send", "chat", "r3"), ("rate", 0.0)]


async def test_a_refused_wish_says_why(clock: Clock) -> None:
    wishes = Wishes(refuses="drain")
    app = live_app(clock, wishes)
    async with shown(app) as pilot:
        await press(pilot, "d")
        await _settle(app)
        assert notes(app) == "cannot drain\ntry another"


async def test_without_control_a_live_cluster_is_read_only(clock: Clock) -> None:
    app = live_app(clock)
    assert Need.CONTROL not in app.available
    async with shown(app, (170, 42)) as pilot:
        text = await text_after(pilot, "d", "x", "a", "r")
    assert "read-only" in text
    assert "Fault" not in text


async def test_paused_painting_shows_its_age_and_goes_on(clock: Clock) -> None:
    app = live_app(clock)
    async with shown(app) as pilot:
        await press(pilot, "space")
        clock.now_s += 7.0
        before = app.frame
        assert "PAUSED 7 s ago" in await text_after(pilot)
        assert app.frame is before
        assert "PAUSED" not in await text_after(pilot, "space")
        assert app.frame is not before


@pytest.mark.parametrize("text", ["", "much", "-1", "1001", "nan"])
def test_what_is_no_factor_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_factor(text)


def test_requests_are_read_as_people_type_them() -> None:
    assert parse_request("decode", ("decode",)) == ("decode", None)
    assert parse_request(" decode at s1 ", ("decode",)) == ("decode", "s1")
    with pytest.raises(UsageError):
        parse_request("code", ("decode",))
    with pytest.raises(UsageError):
        parse_request("decode heavy", ())
