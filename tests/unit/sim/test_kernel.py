"""The agenda: order in time, and an order within one nanosecond that engines cannot change."""

from __future__ import annotations

from anyserve.sim.agenda import Call
from anyserve.sim.kernel import Kernel, engine_lane


def run_all(kernel: Kernel) -> None:
    kernel.limit_ns = 1_000
    while kernel.run(100):
        pass


def test_entries_are_carried_out_in_order_of_time() -> None:
    kernel, said = Kernel(lane_ns=5), list[str]()
    kernel.at(30, said.append, "late")
    kernel.at(10, said.append, "early")
    kernel.soon(Call(said.append), "soon")

    run_all(kernel)

    assert said == ["soon", "early", "late"]


def test_of_one_instant_engines_come_first_in_the_order_of_their_replicas() -> None:
    kernel, said = Kernel(lane_ns=7), list[str]()
    kernel.soon(Call(said.append), "message")
    kernel.at(7, said.append, "timer")
    kernel.engine_at(7, engine_lane(1), Call(said.append), "engine 1")
    kernel.engine_at(7, engine_lane(0), Call(said.append), "engine 0")

    run_all(kernel)

    assert said == ["engine 0", "engine 1", "message", "timer"]


def test_what_is_asked_for_meanwhile_keeps_its_turn() -> None:
    kernel, said = Kernel(lane_ns=0), list[str]()

    def first(_: None) -> None:
        said.append("first")
        kernel.at(0, said.append, "asked for by the first")

    kernel.at(10, first, None)
    kernel.at(10, said.append, "second")

    run_all(kernel)

    assert said == ["first", "second", "asked for by the first"]


def test_nothing_beyond_the_limit_is_carried_out_and_the_rest_waits() -> None:
    kernel, said = Kernel(lane_ns=0), list[str]()
    kernel.at(10, said.append, "in time")
    kernel.at(11, said.append, "too late")
    kernel.limit_ns = 10

    assert kernel.run(100) == 1
    assert (said, kernel.now, kernel.next_ns) == (["in time"], 10, 11)


def test_at_most_so_many_entries_are_carried_out() -> None:
    kernel, said = Kernel(lane_ns=0), list[int]()
    for number in range(5):
        kernel.at(number, said.append, number)
    kernel.limit_ns = 100

    assert kernel.run(3) == 3
    assert said == [0, 1, 2]


def test_what_was_withdrawn_is_not_done_and_what_comes_after_it_is() -> None:
    kernel, said = Kernel(lane_ns=0), list[str]()
    kernel.at(0, lambda _: soon.withdraw(), None)
    soon = kernel.do_at(10, Call(said.append), "soon")
    late = kernel.do_at(900, Call(said.append), "late")
    kernel.engine_at(900, engine_lane(0), Call(said.append), "engine").withdraw()
    kernel.at(950, said.append, "last")
    late.withdraw()

    run_all(kernel)

    assert said == ["last"]
    assert kernel.next_ns is None


def test_a_closed_kernel_has_nothing_to_do_and_its_entries_know_nobody() -> None:
    kernel, said = Kernel(lane_ns=1), list[str]()
    entries = [kernel.do_at(time_ns, Call(said.append), "never") for time_ns in (5, 1 << 40)]
    kernel.soon(Call(said.append), "never")

    kernel.close()
    run_all(kernel)

    assert said == []
    assert kernel.next_ns is None
    assert all(entry.withdrawn and entry.what is None for entry in entries)
