"""A source that speaks, ends or breaks while the screens are up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from screens import FACTS, PLAN, Clock, OpenSource, live_app, press, shown, story, text_after

from anyserve.core.events import Envelope
from anyserve.errors import StartError
from anyserve.telemetry.source import SourceKind
from anyserve.tui.app import AnyServeApp
from anyserve.tui.feed import LiveFeed
from anyserve.tui.widgets.grid import LiveGrid


async def test_the_end_of_the_source_is_shown_and_nothing_closes(clock: Clock) -> None:
    source = OpenSource(list(story()), kind=SourceKind.LIVE, facts=FACTS)
    app = AnyServeApp(LiveFeed(source, PLAN, clock), None, clock, owns_cluster=True)
    async with shown(app, (160, 42)) as pilot:
        assert " LIVE " in await text_after(pilot)
        source.finish()
        clock.now_s += 5
        await pilot.pause()
        text = await text_after(pilot)
        assert " ENDED " in text
        assert "✔ requests.failed == 0" in text
        await press(pilot, "q")  # asks nothing: there is no cluster any more
    assert app.return_value == 0


async def test_a_broken_source_says_why(clock: Clock) -> None:
    feed = LiveFeed(_Broken(), PLAN, clock)
    app = AnyServeApp(feed, None, clock)
    async with shown(app) as pilot:
        text = await text_after(pilot)
    assert "the broker is gone" in text
    assert "no replica has said anything yet" in text


async def test_leaving_closes_the_source(clock: Clock) -> None:
    app = live_app(clock)
    async with shown(app) as pilot:
        await press(pilot, "q")
    source = app.feed._source  # type: ignore[attr-defined]
    assert source.closed


async def test_only_rows_that_changed_are_painted(clock: Clock) -> None:
    app = live_app(clock)
    async with shown(app) as pilot:
        await text_after(pilot)
        grid = app.screen.query_one("#replicas", LiveGrid)
        drawn = dict(grid._strips)
        app.tick()
        await pilot.pause()
        assert all(grid._strips[place] is strip for place, strip in drawn.items())


class _Broken:
    kind = SourceKind.LIVE
    facts: Mapping[str, str] = {}

    async def __aiter__(self) -> AsyncIterator[Sequence[Envelope]]:
        raise StartError("the broker is gone", code="broker_gone", hint="")
        yield []

    async def close(self) -> None:
        return
