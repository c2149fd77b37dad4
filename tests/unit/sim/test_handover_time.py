"""What a recorded run says of the way from a replica to its engine."""

from __future__ import annotations

import pytest
from simulating import PAIR, compiled, simulate

from anyserve.core.events import AttemptEnded
from anyserve.sim.handover_time import handover_time_ns

HANDOVER_NS = 1_700_000


def test_the_hand_over_of_a_simulation_is_found_again() -> None:
    events = simulate(compiled(PAIR, f"sim.handover={HANDOVER_NS / 1000}us"))
    waits = [
        one.event.times.engine_wait_ns for one in events if isinstance(one.event, AttemptEnded)
    ]

    assert max(waits) > 2 * HANDOVER_NS, "many wait for a step, too"
    assert handover_time_ns(events) == pytest.approx(HANDOVER_NS, rel=0.01)


def test_few_requests_say_nothing() -> None:
    events = simulate(compiled(PAIR, "traffic.phases[0].duration=1s"))

    assert handover_time_ns(events) is None
