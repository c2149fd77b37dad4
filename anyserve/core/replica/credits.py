"""A replica's side of the credit counters."""

from __future__ import annotations

from anyserve.core.messages import Credit, Load
from anyserve.core.seen import Ordinals


class CreditBook:
    """Three counters that only go up: what was granted, taken here, and assigned.

    Every use of a slot, assigned or entered here, consumes one credit; every end grants one. So
    `granted - taken - assigned` is what the scheduler may still assign, whatever is lost, repeated
    or reordered on the way.
    """

    def __init__(self, window: int) -> None:
        self.granted_total = window
        self.taken_total = 0
        self._assigned_before = 0
        self._assigned = Ordinals()
        self._sequence = 0
        self._urgent = True

    @property
    def assigned_seen(self) -> int:
        """Distinct assignments received."""
        return self._assigned_before + self._assigned.count

    @property
    def outstanding(self) -> int:
        """Credit the scheduler has and, as far as is known here, has not used. Below zero when an
        assignment and an entry met on their way."""
        return self.granted_total - self.taken_total - self.assigned_seen

    @property
    def urgent(self) -> bool:
        """Whether the scheduler would decide otherwise if it knew the counters as they are. That
        its assignments arrived it reads from `started`, or with the next heartbeat."""
        return self._urgent

    def begin_epoch(self) -> None:
        """A new scheduler life counts its assignments from 1; earlier ones can no longer arrive."""
        self._assigned_before += self._assigned.count
        self._assigned = Ordinals()
        self._urgent = True

    def see_assignment(self, ordinal: int) -> bool:
        """An assignment arrived, or is known to have been sent; False where it was seen before."""
        return self._assigned.add(ordinal)

    def take(self) -> None:
        """A request that entered here starts."""
        self.taken_total += 1
        self._urgent = True

    def grant(self) -> None:
        """A credit that was consumed is free again."""
        self.granted_total += 1
        self._urgent = True

    def report(self, replica: str, incarnation: int, epoch: int, load: Load) -> Credit:
        """The message that brings the scheduler up to date."""
        self._sequence += 1
        self._urgent = False
        return Credit(
            replica=replica,
            incarnation=incarnation,
            epoch=epoch,
            sequence=self._sequence,
            granted_total=self.granted_total,
            taken_total=self.taken_total,
            assigned_seen=self.assigned_seen,
            ordinals_below=self._assigned.watermark,
            load=load,
        )
