"""Progress of a simulation where no terminal is there to draw on."""

from __future__ import annotations

from anyserve.cli.sim.playing import LINES_S, ProgressLines
from anyserve.sim.simulation import Phase, Progress


def test_a_long_run_says_now_and_then_how_far_it_is() -> None:
    said: list[str] = []
    now = [100.0]
    lines = ProgressLines(said.append, lambda: now[0])
    for seconds, settled in ((1, 10), (LINES_S, 0), (1, 20), (LINES_S, 2_000), (LINES_S, 3_000)):
        now[0] += seconds
        lines.show(Progress(Phase.PLAYING, 1.0, 9.0, 5_000, 4_000, settled))

    assert said == [
        "0 of 5,000 requests",
        "2,000 of 5,000 requests, about 48 s left",
        "3,000 of 5,000 requests, about 31 s left",
    ]


def test_lines_say_what_is_done() -> None:
    said: list[str] = []
    now = [0.0]
    lines = ProgressLines(said.append, lambda: now[0], doing="matching: ")
    now[0] += LINES_S
    lines.show(Progress(Phase.PLAYING, 1.0, 9.0, 50, 40, 0))

    assert said == ["matching: 0 of 50 requests"]


def test_what_is_left_is_reckoned_from_the_begin_of_the_simulation_at_hand() -> None:
    said: list[str] = []
    now = [0.0]
    lines = ProgressLines(said.append, lambda: now[0])
    now[0] += 100 * LINES_S
    lines.begin()
    now[0] += LINES_S
    lines.show(Progress(Phase.PLAYING, 1.0, 9.0, 400, 300, 100))

    assert said == ["100 of 400 requests, about 45 s left"]
