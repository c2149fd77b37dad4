"""Two runs side by side."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from simulating import PAIR, compiled, simulate

from anyserve.core.events import Envelope
from anyserve.telemetry.compare import Comparison, compare, relative_error
from anyserve.telemetry.compare_render import print_comparison
from anyserve.telemetry.summary import RunFacts, summarise, to_dict


def comparison(first: list[Envelope], second: list[Envelope]) -> Comparison:
    summaries = [to_dict(summarise(one, facts=RunFacts(kind="sim"))) for one in (first, second)]
    return compare(("a", "b"), (summaries[0], summaries[1]), (first, second))


def test_a_run_is_like_itself() -> None:
    events = simulate(compiled(PAIR))
    same = comparison(events, events)

    assert all(one.error in {0.0, None} for one in same.figures)
    assert {one.metric for one in same.spreads} >= {"ttft", "tpot", "e2e"}
    assert all(one.distance == 0 for one in same.spreads)


def test_a_slower_network_shows_as_later_first_tokens_and_nothing_else() -> None:
    near = simulate(compiled(PAIR, "sim.network.latency=100us"))
    far = simulate(compiled(PAIR, "sim.network.latency=20ms"))
    found = {one.metric: one for one in comparison(near, far).figures}

    assert found["requests.completed"].error == 0
    ttft = found["ttft.mean_ms"]
    assert ttft.first is not None
    assert ttft.second is not None
    assert 50 < ttft.second - ttft.first < 110
    assert ttft.error == pytest.approx(ttft.second / ttft.first - 1)


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [(100, 103, 0.03), (0, 0, 0), (0, 1, None), (None, 1, None), (4, 2, -0.5)],
)
def test_relative_error(first: float | None, second: float | None, error: float | None) -> None:
    found = relative_error(first, second)
    assert found == (None if error is None else pytest.approx(error))


def test_it_is_drawn_with_errors_and_both_distributions() -> None:
    near = simulate(compiled(PAIR, "sim.network.latency=100us"))
    far = simulate(compiled(PAIR, "sim.network.latency=20ms"))
    text = io.StringIO()
    print_comparison(comparison(near, far), Console(file=text, width=100))

    lines = text.getvalue().splitlines()
    assert lines[0] == "A  a (sim)"
    (ttft,) = [line for line in lines if line.startswith("first token mean")]
    assert "+" in ttft
    assert ttft.rstrip().endswith("%")
    assert any(line.startswith("first token, ms; the distributions differ by") for line in lines)
