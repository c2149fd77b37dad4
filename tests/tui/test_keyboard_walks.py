"""What a person does with the keys, from one end to the other."""

from __future__ import annotations

import json
from pathlib import Path

from screens import (
    FACTS,
    Clock,
    OpenSource,
    Wishes,
    answer,
    live_app,
    notes,
    press,
    replay_app,
    shown,
    steady_load,
    text_after,
)
from textual.command import CommandPalette
from textual.pilot import Pilot

from anyserve.telemetry.run_plan import RunPlan
from anyserve.telemetry.source import SourceKind
from anyserve.tui.app import AnyServeApp
from anyserve.tui.commands import KeyCommands
from anyserve.tui.desk import INTERRUPTED
from anyserve.tui.feed import LiveFeed
from anyserve.tui.options import TuiOptions
from anyserve.tui.screens.capabilities import CapabilitiesScreen
from anyserve.tui.screens.help import HelpScreen
from anyserve.tui.screens.overview import OverviewScreen
from anyserve.tui.screens.replica import ReplicaScreen
from anyserve.tui.screens.trace import TraceScreen
from anyserve.tui.screens.traces import TracesScreen
from anyserve.tui.widgets.grid import LiveGrid


async def test_a_delegated_request_is_found_in_four_keys(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app, (160, 42)) as pilot:
        text = await text_after(pilot, "3", "down", "down", "enter")
        assert isinstance(app.screen, TraceScreen)
    assert "player/52" in text
    assert "r1 delegated it: not registered" in text
    assert "least-loaded chose r4 for code" in text
    assert "delegations 1 of 1" in text
    assert "first token" in text


async def test_next_and_previous_walk_the_list_the_request_came_from(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        await press(pilot, "3", "enter")
        assert "player/62" in await text_after(pilot)
        assert "request player/57" in await text_after(pilot, "n")
        assert "request player/52" in await text_after(pilot, "n")
        assert "request player/57" in await text_after(pilot, "N")
        assert "replica r4" in await text_after(pilot, "o")
        await press(pilot, "escape", "escape")
        assert isinstance(app.screen, OverviewScreen)


async def test_zoom_shows_the_time_up_to_the_first_token(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        whole = await text_after(pilot, "3", "enter")
        near = await text_after(pilot, "z")
        assert "decode " in whole
        assert "decode " in await text_after(pilot, "z")
        assert near != whole
        assert "z whole request" in near


async def test_the_same_digit_again_maximises_and_escape_restores(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        assert "³delegations" in await text_after(pilot, "2")
        alone = await text_after(pilot, "2")
        assert "╭─ ³delegations" not in alone
        assert "╭─ ²routing" in alone
        assert "╭─ ³delegations" in await text_after(pilot, "escape")


async def test_a_filter_holds_for_its_panel_and_escape_takes_it_away(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        await press(pilot, "slash")
        await answer(pilot, "wait>0")
        text = await text_after(pilot)
        assert "2 of 6" in text
        assert "/ wait>0" in text
        assert [one.id for one in app.screen.query_one("#replicas", LiveGrid).items] == ["r1", "r3"]
        assert "¹replicas · 6" in await text_after(pilot, "escape")


async def test_a_wrong_filter_is_explained_and_can_be_mended(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        await press(pilot, "slash")
        await answer(pilot, "stat:lost")
        assert "did you mean 'state'?" in await text_after(pilot)
        await answer(pilot, "state:lost")
        grid = app.screen.query_one("#replicas", LiveGrid)
        assert [one.id for one in grid.items] == ["r5"]


async def test_sorting_keeps_the_cursor_on_its_replica(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        grid = app.screen.query_one("#replicas", LiveGrid)
        await press(pilot, "down", "down")
        assert grid.cursor_key == "r3"
        await press(pilot, "s", "s")  # by state, by wait
        assert [one.id for one in grid.items][:2] == ["r3", "r1"]
        assert grid.cursor_key == "r3"


async def test_resizing_keeps_the_selection(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app, (170, 42)) as pilot:
        grid = app.screen.query_one("#replicas", LiveGrid)
        await press(pilot, "G", "up")
        assert grid.cursor_key == "r5"
        for size in ((80, 24), (60, 10), (120, 36)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            app.tick()
            await pilot.pause()
            assert grid.cursor_key == "r5"


async def test_a_row_that_moves_takes_the_cursor_with_it(clock: Clock) -> None:
    app = replay_app(clock, at_s=20.0)
    async with shown(app) as pilot:
        await press(pilot, "3", "down")
        grid = app.screen.query_one("#ledger", LiveGrid)
        key, place = grid.cursor_key, 1
        assert key == grid.items[place].request + f"@{grid.items[place].at_ns}"
        await press(pilot, "right_square_bracket")
        assert grid.cursor_key == key
        assert key != grid.items[place].request + f"@{grid.items[place].at_ns}"


async def test_following_stays_with_the_newest(clock: Clock) -> None:
    app = replay_app(clock, at_s=20.0)
    async with shown(app) as pilot:
        await press(pilot, "3", "right_square_bracket", "right_square_bracket")
        grid = app.screen.query_one("#ledger", LiveGrid)
        assert grid.cursor_item is grid.items[0]
        await press(pilot, "f", "down", "f")
        assert grid.follow


async def test_the_way_from_capability_to_its_replicas_and_back(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        text = await text_after(pilot, "c", "down", "down")
        assert isinstance(app.screen, CapabilitiesScreen)
        assert "if r2 is lost" in text
        assert "vision has no other ready replica" in text
        await press(pilot, "g", "enter")
        assert isinstance(app.screen, OverviewScreen)
        grid = app.screen.query_one("#replicas", LiveGrid)
        assert [one.id for one in grid.items] == ["r1", "r2", "r3"]
        await press(pilot, "enter")
        assert isinstance(app.screen, ReplicaScreen)


async def test_requests_can_be_filtered_sorted_and_opened(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app, (160, 42)) as pilot:
        await press(pilot, "t", "slash")
        await answer(pilot, "hops>1 asked:code")
        assert isinstance(app.screen, TracesScreen)
        grid = app.screen.query_one("#requests", LiveGrid)
        assert {one.asked for one in grid.items} == {"code"}
        assert all(one.delegations for one in grid.items)
        await press(pilot, "s")
        ids = [one.id for one in grid.items]
        assert ids == sorted(ids)
        await press(pilot, "enter")
        assert isinstance(app.screen, TraceScreen)


async def test_errors_only_hides_what_is_routine(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app, (160, 42)) as pilot:
        assert "phase burst" in await text_after(pilot, "4", "4")
        text = await text_after(pilot, "e")
        assert "phase burst" not in text
        assert "r5 is lost" in text
        assert "errors only" in text


async def test_help_says_what_counts_here_and_goes_away(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app, (120, 60)) as pilot:
        text = await text_after(pilot, "question_mark")
        assert isinstance(app.screen, HelpScreen)
        assert "on this screen (overview)" in text
        assert "Play the recorded run" in text
        assert "Kill, hang or slow" not in text
        await press(pilot, "question_mark")
        assert isinstance(app.screen, OverviewScreen)


async def test_a_row_is_copied_as_json(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        await press(pilot, "y")
        replica = json.loads(app.clipboard)
        assert replica["id"] == "r1"
        await press(pilot, "3", "enter", "y")
        trace = json.loads(app.clipboard)
        assert trace["schema"] == "anyserve.trace/1"


async def test_the_palette_finds_a_key_by_its_name(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        provider = KeyCommands(app.screen)
        found = [hit async for hit in provider.search("capabilities")]
        assert [hit.help for hit in found] == ["Who offers what, and what if one is lost"]
        await found[0].command()
        await pilot.pause()
        assert isinstance(app.screen, CapabilitiesScreen)
        offered = {str(hit.text) async for hit in KeyCommands(app.screen).discover()}
        assert "Seek  (S)" in offered
        assert not any("Fault" in one for one in offered)
        await press(pilot, "colon")
        assert isinstance(app.screen, CommandPalette)


async def test_the_palette_offers_every_theme(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        hits = [hit async for hit in KeyCommands(app.screen).search("theme nord")]
        hits[0].command()
        await pilot.pause()
        assert app.theme == "nord"
        assert "¹replicas" in await text_after(pilot)


def _texts(folder: Path) -> list[str]:
    return [path.read_text() for path in folder.iterdir()]


async def test_a_screenshot_is_written_as_svg(clock: Clock, tmp_path: Path) -> None:
    app = replay_app(clock, options=TuiOptions(screenshots=tmp_path))
    async with shown(app) as pilot:
        await press(pilot, "w")
        assert "wrote anyserve_" in notes(app)
    assert [text[:4] for text in _texts(tmp_path)] == ["<svg"]


async def test_a_screenshot_that_cannot_be_written_says_why(clock: Clock, tmp_path: Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    app = replay_app(clock, options=TuiOptions(screenshots=nowhere / "below"))
    async with shown(app) as pilot:
        await press(pilot, "w")
        assert "cannot write" in notes(app)


async def test_the_paint_rate_stays_within_its_bounds(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        await press(pilot, *["plus"] * 3)
        assert app.paint_hz == 8.0
        await press(pilot, *["minus"] * 9)
        assert app.paint_hz == 0.5


async def test_ctrl_c_leaves_from_a_prompt_too(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        await press(pilot, "slash", "ctrl+c")
    assert app.return_value == INTERRUPTED


async def test_all_themes_of_the_short_list_paint(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        before = await text_after(pilot)
        for _ in range(6):
            await press(pilot, "T")
        assert app.theme == "anyserve-dark"
        app.clear_notifications()
        assert await text_after(pilot) == before


async def test_ctrl_c_leaves_at_once(clock: Clock) -> None:
    app = live_app(clock, Wishes(), owns_cluster=True)
    async with shown(app) as pilot:
        await press(pilot, "ctrl+c")
    assert app.return_value == INTERRUPTED


async def test_quitting_asks_only_where_it_stops_a_cluster(clock: Clock) -> None:
    app = live_app(clock, Wishes(), owns_cluster=True)
    async with shown(app) as pilot:
        await press(pilot, "q")
        assert "Quitting stops the cluster" in await text_after(pilot)
        await press(pilot, "n")
        assert isinstance(app.screen, OverviewScreen)
        await press(pilot, "q", "y")
    assert app.return_value == 0
    app = live_app(clock)
    async with shown(app) as pilot:
        await press(pilot, "q")
    assert app.return_value == 0


def _asked(app: AnyServeApp) -> dict[str, int]:
    grid = app.screen.query_one("#routing", LiveGrid)
    return {row.asked: row.offered for row in grid.items if row.asked}


async def test_the_matrix_counts_the_last_seconds_or_the_whole_run(clock: Clock) -> None:
    app = replay_app(clock)
    async with shown(app) as pilot:
        assert "²routing · last 30 s" in await text_after(pilot)
        lately = _asked(app)
        assert "²routing · whole run" in await text_after(pilot, "v")
        assert _asked(app)["chat"] > lately["chat"]
        assert "²routing · last 30 s" in await text_after(pilot, "v")
        await press(pilot, "S")
        await answer(pilot, "15")
        assert 0 < (await _after(pilot, app))["chat"] < lately["chat"]
        await press(pilot, "S")
        await answer(pilot, "38")
        assert await _after(pilot, app) == lately


async def _after(pilot: Pilot[int], app: AnyServeApp) -> dict[str, int]:
    await text_after(pilot)
    return _asked(app)


async def test_when_the_run_is_over_the_matrix_counts_all_of_it(clock: Clock) -> None:
    app = replay_app(clock, at_s=60.0)
    async with shown(app) as pilot:
        assert "²routing · whole run" in await text_after(pilot)
        assert "²routing · last 30 s" in await text_after(pilot, "v")


async def test_the_plots_of_a_replica_cover_as_much_as_is_known_up_to_five_minutes(
    clock: Clock,
) -> None:
    for seconds, said in ((50, "the last 60 s"), (100, "the last 2 min"), (900, "the last 5 min")):
        source = OpenSource(steady_load(seconds), kind=SourceKind.LIVE, facts=FACTS)
        app = AnyServeApp(LiveFeed(source, RunPlan(), clock), None, clock)
        async with shown(app) as pilot:
            text = await text_after(pilot, "enter")
        assert said in text
        running = next(line for line in text.splitlines() if " running  " in line)
        known = running.split("running")[1].split("2 of 4")[0].strip()
        assert set(known) == {"▄"}
        assert len(known) >= 20
