"""Memory while a simulation runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_objects() -> Iterator[None]:
    """Millions of objects that live for a moment: the cycle collector would look at all of them.

    What core makes has no cycles, nor have plans and logs; what is left is collected afterwards.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
