"""What the pieces of a screen promise, whatever they are given."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from screens import DELEGATED, recording

from anyserve.errors import UsageError
from anyserve.telemetry.advisor import RULES
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.text import format_ns
from anyserve.telemetry.trace import build_trace
from anyserve.telemetry.trace_model import HOPPING, RECOVERING, WAITING
from anyserve.tui import check_terminal
from anyserve.tui.app import AnyServeApp
from anyserve.tui.bindings import action_of, bindings
from anyserve.tui.glyphs import ASCII, UNICODE
from anyserve.tui.keys import KEYS, Need, Place, keys_for, markdown
from anyserve.tui.palette import COLORLESS, palette_of
from anyserve.tui.spans import Part, Span, clip, fit, fit_parts, plain, width_of, wrap
from anyserve.tui.themes import OWN
from anyserve.tui.views.look import Look
from anyserve.tui.views.sizes import Wanted, divide
from anyserve.tui.views.trace import waterfall
from anyserve.tui.widgets.charts import bar_at, meter, resample, spark, split_bar
from anyserve.tui.widgets.columns import Column, fit_columns

DOCS = Path(__file__).parents[2] / "docs"
LOOK = Look(UNICODE)

texts = st.text(st.characters(exclude_categories=["C", "M"]), max_size=12)
lines = st.lists(st.builds(Span, texts, st.sampled_from(["", "ok"])), max_size=5).map(tuple)
widths = st.integers(0, 200)


@given(spans=lines, width=widths)
def test_a_clipped_line_is_never_wider(spans: tuple[Span, ...], width: int) -> None:
    assert width_of(clip(spans, width)) <= width


@given(spans=lines, width=widths, align=st.sampled_from(["left", "right"]))
def test_a_fitted_line_is_exactly_as_wide(spans: tuple[Span, ...], width: int, align: str) -> None:
    assert width_of(fit(spans, width, align)) == width


@given(parts=st.lists(st.tuples(st.integers(0, 9), lines), max_size=8), width=st.integers(1, 120))
def test_the_most_important_parts_stay(
    parts: list[tuple[int, tuple[Span, ...]]], width: int
) -> None:
    made = [Part(*part) for part in parts]
    line = fit_parts(made, width)
    assert width_of(line) <= width
    shown = [part for part in made if part.spans]
    if shown and all(width_of(part.spans) == 0 for part in shown):
        return
    if shown and width_of(line) < width:
        best = max(shown, key=lambda part: part.priority)
        assert plain(best.spans) in plain(line)


@given(parts=st.lists(lines, max_size=8), width=st.integers(1, 120))
def test_wrapped_parts_keep_their_order_and_fit(parts: list[tuple[Span, ...]], width: int) -> None:
    assert all(width_of(line) <= width for line in wrap(parts, width))


columns = st.lists(
    st.builds(
        Column,
        st.uuids().map(str),
        texts,
        st.integers(1, 30),
        priority=st.integers(0, 99),
        flex=st.booleans(),
        most=st.integers(30, 60),
    ),
    min_size=1,
    max_size=12,
)


@given(columns=columns, width=widths)
def test_columns_never_take_more_than_there_is(columns: list[Column], width: int) -> None:
    fitted = fit_columns(columns, width)
    assert sum(size for _, size in fitted) + 2 * (len(fitted) - 1) <= max(width, 0)
    kept = [column for column, _ in fitted]
    assert kept == [column for column in columns if column in kept]
    lowest_kept = min(column.priority for column in kept)
    assert all(one.priority <= lowest_kept for one in columns if one not in kept)
    if len(fitted) > 1:
        assert all(size >= column.width for column, size in fitted)


@given(
    width=st.integers(1, 300),
    body=st.integers(1, 120),
    wanted=st.builds(
        Wanted,
        st.integers(0, 2000),
        st.integers(0, 100),
        st.integers(0, 40),
        st.integers(0, 400),
    ),
)
def test_the_panels_of_the_overview_add_up(width: int, body: int, wanted: Wanted) -> None:
    sizes = divide(width, body, wanted)
    if sizes.too_small or sizes.tabs:
        assert sizes.top == sizes.left == sizes.matrix == sizes.ledger == 0
        return
    assert sizes.top + sizes.matrix + sizes.events == body
    assert sizes.top + sizes.ledger + sizes.scenario == body
    assert min(sizes.top, sizes.matrix, sizes.events, sizes.ledger, sizes.scenario) >= 4
    assert 40 <= sizes.left <= width * 0.55


@given(
    values=st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=60),
    full=st.floats(0.1, 1e6),
)
def test_a_spark_has_a_cell_for_each_value_and_alarms_only_above_its_limit(
    values: list[float | None], full: float
) -> None:
    drawn = spark(values, full, UNICODE)
    assert width_of(drawn) == len(values)
    roles = [span.role for span in drawn for _ in span.text]
    for value, role in zip(values, roles, strict=True):
        assert (role == "spark-over") == (value is not None and value > full)
        assert (role == "faint") == (value is not None and value <= 0)


@given(share=st.one_of(st.none(), st.floats(0, 1)), width=st.integers(1, 60))
def test_a_meter_is_as_wide_as_it_should_be(share: float | None, width: int) -> None:
    drawn = meter(share, width, UNICODE)
    assert width_of(drawn) == width
    if share:
        assert UNICODE.bar in plain(drawn)


@given(start=st.floats(0, 1), length=st.floats(0, 1), width=st.integers(1, 100))
def test_a_bar_stays_within_its_room_and_is_never_nothing(
    start: float, length: float, width: int
) -> None:
    for glyphs in (UNICODE, ASCII):
        drawn = bar_at(start, min(length, 1 - start), width, glyphs, "decode")
        assert 1 <= width_of(drawn) <= width
        assert plain(drawn).strip()


@given(
    parts=st.lists(st.tuples(st.floats(0, 1e6), st.just("ok")), min_size=1, max_size=5),
    width=st.integers(6, 80),
)
def test_a_split_bar_fills_its_room(parts: list[tuple[float, str]], width: int) -> None:
    assert width_of(split_bar(parts, width, UNICODE)) == width


@given(
    points=st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 99)), max_size=40).map(sorted),
    width=st.integers(1, 50),
)
def test_resampling_keeps_the_highest_value(points: list[tuple[int, float]], width: int) -> None:
    values = resample(points, 0, 1000, width)
    assert len(values) == width
    step = 1000 // width
    begin = -(-1000 // step) * step - step * width  # stretches stand at multiples of their length
    within = [value for at, value in points if at >= begin]
    if within:
        assert max(value for value in values if value is not None) >= max(within)
        assert all(
            value is None or value in dict.fromkeys(v for _, v in points) for value in values
        )
    if not points:
        assert values == [None] * width


legs = st.lists(
    st.builds(
        Leg,
        st.sampled_from(["r1", "r2"]),
        end=st.sampled_from(["delegate", "refuse", "return", "lost"]),
        transit_ns=st.integers(0, 10**8),
        scheduler_queue_ns=st.integers(0, 10**9),
        queue_ns=st.integers(0, 10**9),
        prefill_ns=st.integers(1, 10**9),
    ),
    max_size=3,
)


@given(before=legs, width=st.integers(60, 200))
def test_the_parts_of_the_time_to_the_first_token_add_up_to_it(
    before: list[Leg], width: int
) -> None:
    teller = Storyteller()
    teller.request("p/1/1", [*before, Leg("r3", "decode.heavy")])
    trace = build_trace(teller.envelopes)
    assert trace.first_token_ns is not None
    kinds = (WAITING, HOPPING, RECOVERING)
    known = sum(trace.time_in(one, until_ns=trace.first_token_ns) for one in kinds)
    assert 0 <= known <= trace.first_token_ns
    rows = waterfall(trace, width, LOOK)
    assert all(width_of(row) <= width for row in rows[:-1])
    foot = plain(rows[-1])
    assert f"first token {format_ns(trace.first_token_ns)}" in foot
    assert f"{format_ns(trace.first_token_ns - known)} in the engine" in foot


def test_the_waterfall_of_the_story_names_every_segment() -> None:
    reducer = Reducer()
    reducer.apply_all(recording().envelopes)
    trace = reducer.trace(DELEGATED)
    drawn = "\n".join(plain(row) for row in waterfall(trace, 120, LOOK))
    assert all(segment.name in drawn for segment in trace.segments)


# --- one table of keys --------------------------------------------------------------------------


def test_every_key_has_an_action_and_no_place_has_two_meanings() -> None:
    for key in KEYS:
        assert hasattr(AnyServeApp, f"action_{action_of(key).partition('(')[0]}"), key.action
    for place in Place:
        for needs in (
            frozenset({Need.NOTHING, Need.LIVE, Need.CONTROL}),
            frozenset({Need.NOTHING, Need.REPLAY}),
        ):
            pressed = [name for key in keys_for(place, needs) for name in key.keys]
            assert len(pressed) == len(set(pressed)), (place, needs)


def test_every_key_of_the_table_is_bound() -> None:
    bound = {(binding.key, binding.action) for binding in bindings()}
    assert all((name, action_of(key)) in bound for key in KEYS for name in key.keys)


def test_the_docs_show_the_table_as_it_is() -> None:
    assert markdown() in (DOCS / "tui.md").read_text()


def test_the_docs_explain_every_rule_of_the_advisor() -> None:
    text = (DOCS / "tui.md").read_text()
    assert all(f"| {rule.code} | {rule.title} |" in text for rule in RULES)


# --- without colour -----------------------------------------------------------------------------


def test_every_role_has_a_style_in_every_palette() -> None:
    for palette in (COLORLESS, *(palette_of(theme) for theme in OWN)):
        assert set(palette.styles) == set(COLORLESS.styles)
    assert not any(style.color or style.bgcolor for style in COLORLESS.styles.values())


def test_alarms_are_told_from_the_rest_without_colour() -> None:
    styles = COLORLESS.styles
    assert styles["bad"] != styles["warn"] != styles["ok"] != styles["bad"]
    assert styles["spark-over"] != styles["spark-full"]


def test_the_ascii_set_is_ascii_and_tells_the_states_apart() -> None:
    for name in ASCII.__dataclass_fields__:
        value = getattr(ASCII, name)
        assert isinstance(value, bool) or "".join(value).isascii()
    shapes = [ASCII.state(name) for name in ("ready", "saturated", "draining", "lost", "stopped")]
    assert len(set(shapes)) == len(shapes)
    assert ASCII.text("r1 → r2 · é\x1b[0m").isascii()


class _Stream:
    def __init__(self, *, terminal: bool) -> None:
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("stdin", "stderr", "term", "says"),
    [
        (False, True, "xterm", "stdin"),
        (True, False, "xterm", "stderr"),
        (True, True, "dumb", "TERM"),
        (True, True, "", "TERM"),
    ],
)
def test_screens_need_a_terminal(stdin: bool, stderr: bool, term: str, says: str) -> None:
    streams = (_Stream(terminal=stdin), _Stream(terminal=stderr))
    with pytest.raises(UsageError, match=says):
        check_terminal({"TERM": term}, *streams)  # type: ignore[arg-type]


def test_a_terminal_is_enough() -> None:
    streams = (_Stream(terminal=True), _Stream(terminal=True))
    check_terminal({"TERM": "xterm-256color"}, *streams)  # type: ignore[arg-type]
