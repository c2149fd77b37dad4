"""Goldens of screens: rewritten with ANYSERVE_REGOLD=1, then read in the diff like code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from screens import Clock

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until a test moves it."""
    return Clock(1000.0)


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with its golden file."""

    def check(name: str, text: str) -> None:
        path = GOLDENS / f"{name}.txt"
        if os.environ.get("ANYSERVE_REGOLD"):
            path.write_text(text)
        assert text == path.read_text(), f"{path} differs; ANYSERVE_REGOLD=1 rewrites it"

    return check
