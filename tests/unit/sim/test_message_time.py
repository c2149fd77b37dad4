"""What a recorded run says of its network."""

from __future__ import annotations

import pytest
from simulating import PAIR, compiled, simulate

from anyserve.sim.message_time import message_time_ns

LATENCY_NS = 1_700_000


@pytest.mark.parametrize("entry", ["scheduler", "d"])
def test_the_latency_of_a_simulation_is_found_again(entry: str) -> None:
    what = compiled(
        PAIR, f"sim.network.latency={LATENCY_NS / 1000}us", f"traffic.streams.chat.entry={entry}"
    )

    assert message_time_ns(simulate(what)) == pytest.approx(LATENCY_NS, rel=0.01)


def test_what_waits_in_queues_was_not_on_the_way() -> None:
    crowded = compiled(PAIR, "traffic.streams.chat.rate=40", "cluster.replicas[d].concurrency=1")

    assert message_time_ns(simulate(crowded)) == pytest.approx(500_000, rel=0.01)


def test_few_requests_say_nothing() -> None:
    assert message_time_ns(simulate(compiled(PAIR, "traffic.phases[0].duration=1s"))) is None
