"""When Python looks for garbage: not while a person waits for what is loaded or computed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collecting() -> Iterator[None]:
    """The cycle collector would look at everything, again and again, and find nothing.

    For loading, which leaves no garbage, and for simulations: millions of objects that live for a
    moment, and none of core's, of plans or of logs has a cycle. What is left is collected
    afterwards; what goes on for long enables `gc` itself once it has begun.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
