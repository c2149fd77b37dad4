"""When a process that died is started again, and when it is given up. Pure: time is an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Wait `first_s`, doubled for each exit up to `most_s`; after a life of `settled_s` begin anew.

    The `limit`-th exit within `window_s` is the last one.
    """

    first_s: float = 0.5
    most_s: float = 10.0
    limit: int = 3
    window_s: float = 60.0
    settled_s: float = 60.0


class Restarts:
    """The exits of one process, held against its policy."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._exits_at_s: deque[float] = deque(maxlen=policy.limit)
        self._streak = 0

    def after_exit(self, now_s: float, lived_s: float, *, ordered: bool = False) -> float | None:
        """Seconds to wait before the next start; None: it is given up.

        An `ordered` exit (a fault of the scenario, an operator's kill) is not held against it.
        """
        policy = self._policy
        if ordered:
            return policy.first_s
        if lived_s >= policy.settled_s:
            self._streak = 0
        self._streak += 1
        self._exits_at_s.append(now_s)
        if self._too_many(now_s):
            return None
        # The exponent is bounded: a float must not overflow after a thousand exits.
        return min(policy.first_s * 2.0 ** min(self._streak - 1, 32), policy.most_s)

    def _too_many(self, now_s: float) -> bool:
        full = len(self._exits_at_s) == self._policy.limit
        return full and now_s - self._exits_at_s[0] < self._policy.window_s
