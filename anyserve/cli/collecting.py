"""When Python looks for garbage: not while everything is loaded for a person who waits."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collecting() -> Iterator[None]:
    """Nothing is garbage yet; whatever goes on for long enables `gc` itself once it has begun."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
