"""Properties are not timed: under load, examples that take long are no failures."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@settings(max_examples=1)
@given(st.none())
def test_an_example_may_take_long(nothing: None) -> None:
    time.sleep(0.25)  # Hypothesis' own deadline is 0.2 s
    assert nothing is None


def test_examples_may_be_made_slowly() -> None:
    assert HealthCheck.too_slow in settings().suppress_health_check
