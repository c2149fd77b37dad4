"""Every screen at three sizes, as text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from screens import DELEGATED, SIZES, Clock, live_app, press, replay_app, shown, text_after

from anyserve.tui.app import AnyServeApp
from anyserve.tui.options import TuiOptions
from anyserve.tui.screens.overview import OverviewScreen

_SCREENS: dict[str, tuple[str, ...]] = {
    "overview": (),
    "routing": ("2", "2"),
    "ledger": ("3", "3"),
    "events": ("4", "4"),
    "scenario": ("5", "5"),
    "requests": ("t",),
    "capabilities": ("c",),
    "replica": ("down", "down", "enter"),
    "help": ("question_mark",),
}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_every_screen_looks_as_it_did(
    size: tuple[int, int], clock: Clock, golden: Callable[[str, str], None]
) -> None:
    app = replay_app(clock)
    async with shown(app, size) as pilot:
        for name, keys in _SCREENS.items():
            golden(f"{name}-{size[0]}x{size[1]}", await text_after(pilot, *keys))
            await press(pilot, "escape", "escape", "1")
            if size[0] >= 120 and name in {"routing", "ledger", "events", "scenario"}:
                assert isinstance(app.screen, OverviewScreen)
        app.open_trace(DELEGATED)
        await pilot.pause()
        golden(f"trace-{size[0]}x{size[1]}", await text_after(pilot))


async def test_ascii_says_the_same_with_fewer_characters(
    clock: Clock, golden: Callable[[str, str], None]
) -> None:
    app = replay_app(clock, options=TuiOptions(ascii=True, color=False))
    async with shown(app, (120, 36)) as pilot:
        text = await text_after(pilot)
        assert text.isascii()
        golden("overview-ascii", text)
        app.open_trace(DELEGATED)
        await pilot.pause()
        text = await text_after(pilot)
        assert text.isascii()
        golden("trace-ascii", text)


async def test_a_live_cluster_is_told_from_a_recorded_run(
    clock: Clock, golden: Callable[[str, str], None]
) -> None:
    app: AnyServeApp = live_app(clock)
    async with shown(app, (120, 36)) as pilot:
        text = await text_after(pilot)
        assert " LIVE " in text
        assert "REPLAY" not in text
        golden("overview-live", text)


async def test_a_small_terminal_is_told_what_it_lacks(clock: Clock) -> None:
    async with shown(replay_app(clock), (70, 18)) as pilot:
        text = await text_after(pilot)
    assert "80 x 20" in text
    assert "anyserve status" in text
