"""What a worker tells its replica of its engine's steps: when, and with which gaps."""

from __future__ import annotations

from typing import Any

import pytest

from anyserve.core.effects import StartWork
from anyserve.core.inputs import Delta, Stepped
from anyserve.core.messages import Request
from anyserve.core.spec import EngineSpec
from anyserve.sim.agenda import Doer
from anyserve.sim.engines import engine_setup
from anyserve.sim.kernel import Kernel
from anyserve.sim.worker import Worker

MS = 1_000_000


class Bench(Doer):
    """A worker with an echo engine of 10 ms a step, and what it told."""

    def __init__(self, *, exact: bool = False, handover_ms: int = 0) -> None:
        self.kernel = Kernel(0)
        self.told: list[tuple[int, Delta]] = []
        setup = engine_setup(EngineSpec(kind="echo", step_ms=10, max_num_seqs=4, max_model_len=64))
        handover_ns = handover_ms * MS
        self.worker = Worker(self.kernel, 0, setup, self, exact=exact, handover_ns=handover_ns)

    def do(self, what: Any) -> None:
        assert isinstance(what, Stepped)
        self.told += [(self.kernel.now // MS, delta) for delta in what.deltas]

    def submit(self, number: int, *, prompt: int = 4, tokens: int = 5) -> None:
        request = Request(
            id=f"p/1/{number}",
            asked="decode",
            capability="decode",
            prompt_tokens=prompt,
            max_tokens=tokens,
            offered_ns=0,
        )
        self.worker.submit(StartWork(request, 1, 1), ())

    def run(self, until_ms: int) -> None:
        self.kernel.at(until_ms * MS, lambda _: None, None)
        self.kernel.limit_ns = until_ms * MS
        while self.kernel.run(100):
            pass


def test_the_first_token_and_the_end_are_told_with_the_gaps_between() -> None:
    bench = Bench()
    bench.submit(1)
    bench.run(100)

    (first_ms, first), (end_ms, end) = bench.told
    assert (first_ms, first.tokens, first.done, first.scheduled_ns) == (10, [0], False, 0)
    assert (end_ms, len(end.tokens), end.done, end.finish) == (50, 4, True, "length")
    assert dict(end.gaps) == {10 * MS: 4}


def test_an_arrival_amid_a_stretch_takes_part_in_the_step_after_the_next_boundary() -> None:
    bench = Bench()
    bench.submit(1, tokens=6)
    bench.run(24)
    bench.submit(2, tokens=1)
    bench.run(100)

    times = {delta.id: at_ms for at_ms, delta in bench.told if delta.done}
    assert times == {"p/1/2": 40, "p/1/1": 60}


def test_an_idle_engine_begins_when_the_request_was_handed_over() -> None:
    bench = Bench(handover_ms=3)
    bench.submit(1, tokens=2)
    bench.run(1)
    bench.submit(2, tokens=2)
    bench.run(100)

    assert [(at_ms, delta.id, delta.scheduled_ns) for at_ms, delta in bench.told[:2]] == [
        (13, "p/1/1", 3 * MS),
        (23, "p/1/2", 13 * MS),
    ]


def test_what_is_under_way_at_a_boundary_takes_part_after_the_next_one() -> None:
    bench = Bench(handover_ms=3)
    bench.submit(1, tokens=6)
    bench.run(21)
    bench.submit(2, tokens=1)
    bench.run(100)

    ends = {delta.id: at_ms for at_ms, delta in bench.told if delta.done}
    assert ends == {"p/1/2": 43, "p/1/1": 63}


def test_what_is_under_way_when_the_engine_falls_idle_starts_it_again() -> None:
    bench = Bench(handover_ms=3)
    bench.submit(1, tokens=1)
    bench.run(12)
    bench.submit(2, tokens=1)
    bench.run(100)

    assert [(at_ms, delta.id) for at_ms, delta in bench.told] == [(13, "p/1/1"), (25, "p/1/2")]


@pytest.mark.parametrize(("at_ms", "told_ms", "made"), [(1, 13, 1), (11, 23, 2), (21, 33, 3)])
def test_a_cancel_is_handed_over_as_well(at_ms: int, told_ms: int, made: int) -> None:
    bench = Bench(handover_ms=3)
    bench.submit(1, tokens=9)
    bench.run(at_ms)
    bench.worker.cancel("p/1/1", 1)
    bench.run(100)

    told = [(at_ms, delta.finish) for at_ms, delta in bench.told if delta.done]
    assert told == [(told_ms, "cancelled")]
    assert sum(len(delta.tokens) for _, delta in bench.told) == made


def test_what_was_made_by_now_is_told_when_something_is_about_to_happen() -> None:
    bench = Bench()
    bench.submit(1, tokens=9)
    bench.run(45)
    bench.worker.flush()
    bench.run(100)

    counts = [(at_ms, len(delta.tokens)) for at_ms, delta in bench.told]
    assert counts == [(10, 1), (45, 3), (90, 5)]
    assert [dict(delta.gaps) for _, delta in bench.told[1:]] == [{10 * MS: 3}, {10 * MS: 5}]


def test_what_is_told_of_several_is_told_in_the_order_in_which_they_came() -> None:
    bench = Bench()
    for number, tokens in ((3, 9), (1, 7), (2, 8)):  # who ends first comes last
        bench.submit(number, tokens=tokens)
    bench.run(35)
    bench.submit(4, tokens=9)  # which has no token yet
    before = len(bench.told)
    bench.worker.flush()

    told = [(delta.id, len(delta.tokens)) for _, delta in bench.told[before:]]
    assert told == [("p/1/3", 2), ("p/1/1", 2), ("p/1/2", 2)]


def test_a_cancel_acts_at_the_next_boundary_and_keeps_what_was_made() -> None:
    bench = Bench()
    bench.submit(1, tokens=9)
    bench.run(25)
    bench.worker.cancel("p/1/1", 1)
    bench.run(100)

    at_ms, delta = bench.told[-1]
    assert (at_ms, delta.finish, len(delta.tokens)) == (30, "cancelled", 2)


def test_a_worker_that_hangs_ends_its_step_that_much_later() -> None:
    bench = Bench()
    bench.submit(1, tokens=3)
    bench.run(15)
    bench.worker.hang()
    bench.run(115)
    assert bench.worker.hung
    bench.worker.resume()
    bench.run(300)

    at_ms, delta = bench.told[-1]
    assert (at_ms, dict(delta.gaps)) == (130, {125_892_541: 1, 10 * MS: 1})


def test_a_dead_worker_tells_nothing() -> None:
    bench = Bench()
    bench.submit(1)
    bench.run(15)
    bench.worker.die()
    bench.run(100)

    assert [at_ms for at_ms, _ in bench.told] == [10]


def test_a_prompt_that_is_too_long_is_refused_by_the_engine() -> None:
    bench = Bench()
    bench.submit(1, prompt=64)
    bench.run(10)

    ((_, delta),) = bench.told
    assert delta.error == "64 prompt tokens, but this engine's context of 64 takes 63."


def test_the_context_bounds_what_is_generated() -> None:
    bench = Bench()
    bench.submit(1, prompt=60, tokens=50)
    bench.run(1_000)

    assert sum(len(delta.tokens) for _, delta in bench.told) == 4
