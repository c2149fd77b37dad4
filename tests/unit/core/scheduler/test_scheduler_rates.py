from __future__ import annotations

import pytest

from anyserve.core.scheduler.rates import CompletionRate

S = 1_000_000_000


def steady(per_s: int, seconds: int = 120) -> CompletionRate:
    rate = CompletionRate()
    for n in range(per_s * seconds):
        rate.completed("decode", n * S // per_s)
    return rate


def test_nothing_completed_means_one_second() -> None:
    assert CompletionRate().wait_ms("decode", 1_000, 0) == 1_000


@pytest.mark.parametrize("per_s", [2, 20])
def test_a_steady_rate_is_recovered(per_s: int) -> None:
    wait_ms = steady(per_s).wait_ms("decode", 40, 120 * S)

    assert wait_ms == pytest.approx(40_000 / per_s, rel=0.05)


def test_the_rate_halves_in_ten_silent_seconds() -> None:
    rate = steady(10)

    now, later = rate.wait_ms("decode", 20, 120 * S), rate.wait_ms("decode", 20, 130 * S)

    assert later == pytest.approx(2 * now, rel=0.01)


def test_a_rate_of_long_ago_is_no_rate() -> None:
    assert steady(10).wait_ms("decode", 20, 1_000 * S) == 1_000


def test_the_answer_stays_between_a_tenth_of_a_second_and_a_minute() -> None:
    rate = steady(1)

    assert rate.wait_ms("decode", 0, 120 * S) == 100
    assert rate.wait_ms("decode", 10_000, 120 * S) == 60_000


def test_capabilities_do_not_share_a_rate() -> None:
    assert steady(10).wait_ms("embedding", 20, 120 * S) == 1_000
