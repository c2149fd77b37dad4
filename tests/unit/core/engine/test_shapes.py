from __future__ import annotations

from anyserve.core.engine.shapes import Shapes


def test_the_latest_32_numbers_of_tokens_are_known() -> None:
    shapes = Shapes(256, 1)
    assert not shapes.is_new(256)
    assert all(shapes.is_new(tokens) for tokens in range(2, 32))

    assert shapes.is_new(32)
    assert not shapes.is_new(256)
    assert shapes.is_new(1)  # not since the beginning
