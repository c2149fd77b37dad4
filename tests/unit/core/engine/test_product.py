"""Products in two halves are products."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anyserve.core.engine.product import product


@given(st.integers(-(1 << 70), 1 << 70), st.integers(-(1 << 40), 1 << 40))
def test_a_product_is_what_it_would_be_in_one(time_ps: int, factor: int) -> None:
    assert product(time_ps, factor) == time_ps * factor
