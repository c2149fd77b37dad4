"""Playing a plan: what is sent when. The live player and the simulator both follow it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from anyserve.workload.traffic import PlannedRequest, TrafficPlan


class Course:
    """What of a plan is still to be sent. Times count from the start of traffic.

    Requests with a time of their own are sent then; each other one once the request before it has
    ended. One that would be sent after the end of traffic is left out, with all that follow it; so
    are the turns after one that was not completed.
    """

    def __init__(self, plan: TrafficPlan) -> None:
        self._end_ns = plan.duration_ns
        self._next = {one.after: one for one in plan.requests if one.after is not None}
        self._timed: Sequence[PlannedRequest] = plan.requests
        if self._next:
            self._timed = [one for one in plan.requests if one.after is None]
        self._phases = plan.phases
        self.chained = bool(self._next)
        """Whether any request follows the end of another."""
        self.left = len(plan.requests)
        """Requests that may still be sent."""

    def timed(self) -> Sequence[PlannedRequest]:
        """The requests that have a time of their own, in order of time."""
        return self._timed

    def sent(self) -> None:
        """One was sent."""
        self.left -= 1

    def after(self, planned: PlannedRequest, now_ns: int, *, completed: bool) -> int | None:
        """A request has ended: when the one after it is due, if there is one; see `following`."""
        following = self._next.get(planned.n)
        if following is None:
            return None
        due_ns = max(now_ns + following.think_ns, following.at_ns)
        broken = not completed and following.stream == planned.stream and planned.answer != 0
        if due_ns >= self._end_ns or broken:
            self._leave_out(planned)
            return None
        return due_ns

    def following(self, planned: PlannedRequest, due_ns: int) -> PlannedRequest:
        """The request after this one, as it is sent at that time."""
        following = self._next.pop(planned.n)
        phase = next((one for one in self._phases if due_ns < one.end_ns), self._phases[-1])
        return msgspec.structs.replace(following, phase=phase.name)

    def _leave_out(self, planned: PlannedRequest) -> None:
        """Nothing that follows this one is sent."""
        number = planned.n
        while (following := self._next.pop(number, None)) is not None:
            self.left -= 1
            number = following.n
