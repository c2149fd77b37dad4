"""The player's process: `core.Origin`, and the plan whose requests it offers."""

from __future__ import annotations

from collections.abc import Callable

from anyserve.core.effects import Effect, Finish, Outcome
from anyserve.core.events import PhaseStarted, RunEnded, RunStarted
from anyserve.core.inputs import Cancelled, Offered
from anyserve.core.messages import Code, Deadline, Request
from anyserve.core.order import MS
from anyserve.core.origin import Origin
from anyserve.sim.process import Process
from anyserve.sim.world import World
from anyserve.workload.traffic import PlannedRequest, Segment, TrafficPlan

PLAYER = "player"


class OriginProcess(Process):
    """Offers each planned request at its time and waits for all outcomes, as the live player does.

    `ended` is called once all have theirs.
    """

    def __init__(
        self, world: World, plan: TrafficPlan, *, run: str, ended: Callable[[], None]
    ) -> None:
        super().__init__(PLAYER, world)
        self.machine = Origin(PLAYER, world.cluster, incarnation=1)
        self.started_ns: int | None = None
        self.settled = 0
        """Requests with an outcome."""
        self._plan = plan
        self._run = run
        self._ended = ended
        self._next = 0
        self._planned: dict[str, PlannedRequest] = {}
        self._lifetime_ms = world.cluster.request_lifetime_ms

    def start(self) -> None:
        """The process's life begins."""
        self._begin(self.machine)
        self.connect()

    def play(self, start_ns: int) -> None:
        """Begin the traffic at this time."""
        self.started_ns = start_ns
        self._kernel.at(start_ns, self._play, None)

    @property
    def offered(self) -> int:
        """Requests offered so far."""
        return self._next

    def segments(self, request_id: str) -> tuple[Segment, ...]:
        """The parts of an open request's prompt."""
        planned = self._planned.get(request_id)
        return planned.segments if planned is not None else ()

    def stop(self, reason: str) -> None:
        """Offer nothing more, give up what is open, and end the run."""
        self._next = len(self._plan.requests)
        for request_id in self.machine.pending_ids():
            self.hear(Cancelled(id=request_id, code=Code.SHUTDOWN))
        self.end(reason)

    def end(self, reason: str) -> None:
        """Say that the run is over."""
        self.say(RunEnded(reason=reason))
        self._ended()

    def _play(self, _: None) -> None:
        plan, start_ns = self._plan, self._kernel.now
        self.say(
            RunStarted(
                run=self._run,
                scenario=self._world.cluster.name,
                seed=plan.seed,
                planned_requests=len(plan.requests),
                planned_s=plan.duration_ns / 1e9,
            )
        )
        for phase in plan.phases:
            event = PhaseStarted(name=phase.name, planned_s=(phase.end_ns - phase.start_ns) / 1e9)
            self._kernel.at(start_ns + phase.start_ns, self.say, event)
        self._offer_next(None)
        self._end_if_done()

    def _offer_next(self, planned: PlannedRequest | None) -> None:
        if planned is not None and self._next == planned.n:
            self._next += 1
            self._offer(planned)
        requests = self._plan.requests
        if self._next < len(requests):
            assert self.started_ns is not None
            following = requests[self._next]
            self._kernel.at(self.started_ns + following.at_ns, self._offer_next, following)

    def _offer(self, planned: PlannedRequest) -> None:
        now = self._kernel.now
        request_id = self.machine.next_id()
        self._planned[request_id] = planned
        deadline = None
        if planned.deadline_ms is not None:
            at_ns = now + planned.deadline_ms * MS
            deadline = Deadline(boot="", at_ns=at_ns, left_ms=planned.deadline_ms)
        request = Request(
            id=request_id,
            asked=planned.capability,
            capability=planned.capability,
            prompt_tokens=planned.prompt_tokens,
            max_tokens=planned.max_tokens,
            offered_ns=now,
            lifetime_ms=self._lifetime_ms,
            attributes=planned.attributes,
            priority=planned.priority,
            deadline=deadline,
            affinity=planned.affinity,
        )
        self.hear(
            Offered(
                request=request,
                entry=planned.entry,
                intended_ns=now,
                stream=planned.stream,
                phase=planned.phase,
            )
        )

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Finish):
            self._settle(effect.id, effect.outcome)

    def _settle(self, request_id: str, _outcome: Outcome) -> None:
        self.settled += 1
        del self._planned[request_id]
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._next >= len(self._plan.requests) and not self._planned:
            self.end("completed")
