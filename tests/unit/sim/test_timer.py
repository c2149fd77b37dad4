"""A machine is woken when it asked for, and at no other time."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from anyserve.sim.kernel import Kernel
from anyserve.sim.timer import Timer


class Sleeper:
    """Asks at given times for others, and notes when it is woken."""

    def __init__(self) -> None:
        self.kernel = Kernel(0)
        self.timer = Timer(self.kernel, self)
        self.woken: list[int] = []

    def wake(self) -> None:
        self.woken.append(self.kernel.now)

    def asks(self, now: int, at_ns: int) -> None:
        self.kernel.at(now, self._ask, at_ns)

    def run(self, until: int = 10_000) -> list[int]:
        self.kernel.limit_ns = until
        while self.kernel.run(100):
            pass
        return self.woken

    def _ask(self, at_ns: Any) -> None:
        self.timer.ask(at_ns)


def test_what_is_asked_for_again_as_before_needs_no_new_entry() -> None:
    sleeper = Sleeper()
    for end in range(10):  # as a replica does whose answers end and are settled
        sleeper.asks(10 * end, 1_000)
        sleeper.asks(10 * end + 1, 10 * end + 200)
        sleeper.asks(10 * end + 2, 1_000)

    assert sleeper.run() == [1_000]
    assert sleeper.kernel.handled == 30 + 10 + 1


def test_a_timer_that_is_cleared_wakes_nobody() -> None:
    sleeper = Sleeper()
    sleeper.asks(0, 100)
    sleeper.asks(1, 50)
    sleeper.kernel.at(2, lambda _: sleeper.timer.clear(), None)
    sleeper.asks(3, 400)

    assert sleeper.run() == [400]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60)), min_size=1, max_size=30))
def test_the_newest_wish_counts(asks: list[tuple[int, int]]) -> None:
    """`asks`: after how long each comes, and how far ahead it lies."""
    sleeper, now = Sleeper(), 0
    wishes: list[tuple[int, int]] = []
    for pause, ahead in asks:
        now += pause
        wishes.append((now, now + ahead))
        sleeper.asks(now, now + ahead)

    following = [at for at, _ in wishes[1:]] + [10_000]
    kept = [wish for (_, wish), then in zip(wishes, following, strict=True) if wish < then]
    assert sleeper.run() == kept
