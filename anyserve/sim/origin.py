"""The player's process: `core.Origin`, and the plan whose requests it offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from anyserve.core.effects import Command, Finish, Outcome, OutcomeKind
from anyserve.core.events import PhaseStarted, RunEnded, RunStarted
from anyserve.core.inputs import Cancelled, Offered
from anyserve.core.messages import Code, Deadline, Request
from anyserve.core.order import MS
from anyserve.core.origin import Origin
from anyserve.sim.agenda import Doer
from anyserve.sim.process import Process
from anyserve.sim.world import World
from anyserve.workload.course import Course
from anyserve.workload.traffic import PlannedRequest, Segment, TrafficPlan

PLAYER: Final = "player"


class Offers(Doer):
    """Lets the origin offer what is due, and plan what follows."""

    def __init__(self, origin: OriginProcess) -> None:
        self._origin = origin

    def do(self, what: Any) -> None:
        """See `Doer`."""
        self._origin.offer_next(what)


class OriginProcess(Process):
    """Offers each planned request at its time and waits for all outcomes, as the live player does.

    `ended` is called once all have theirs.
    """

    def __init__(
        self, world: World, plan: TrafficPlan, *, run: str, ended: Callable[[], None]
    ) -> None:
        super().__init__(PLAYER, world)
        self.machine = Origin(PLAYER, world.cluster, incarnation=1, explains=world.sample.takes)
        self.started_ns: int | None = None
        self._stopped = False
        self.settled = 0
        """Requests with an outcome."""
        self._plan = plan
        self._run = run
        self._ended = ended
        self._course = Course(plan)
        self._timed = iter(self._course.timed())
        self.offered = 0
        """Requests offered so far."""
        self._offers = Offers(self)
        self._planned: dict[str, PlannedRequest] = {}
        """Open requests of which more than what was offered is asked later: which texts they begin
        with, and what follows them."""
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
    def expected(self) -> int:
        """Requests that were or may still be offered."""
        return self.offered + self._course.left

    def segments(self, request_id: str) -> tuple[Segment, ...]:
        """The texts of an open request, its answer last, that others may share; empty: none."""
        planned = self._planned.get(request_id)
        if planned is None:
            return ()
        if planned.answer:
            return (*planned.segments, (planned.answer, planned.max_tokens))
        return planned.segments if len(planned.segments) > 1 else ()

    def stop(self, reason: str) -> None:
        """Offer nothing more, give up what is open, and end the run."""
        self._stopped = True
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
        self.offer_next(None)
        self._end_if_done()

    def offer_next(self, planned: PlannedRequest | None) -> None:
        """Offer this one, and plan the next one that has a time of its own."""
        following = next(self._timed, None)
        if following is not None:
            self._kernel.do_at(self._start_ns + following.at_ns, self._offers, following)
        if planned is not None:
            self._offer(planned)

    def _offer(self, planned: PlannedRequest) -> None:
        if self._stopped:
            return
        now = self._kernel.now
        self.offered += 1
        self._course.sent()
        request_id = self.machine.next_id()
        segments = planned.segments
        if self._course.chained or len(segments) > 1 or planned.answer:
            self._planned[request_id] = planned
        # Of one text alone these are known at sight; the plan's properties are calls into Python.
        affinity = planned.affinity if len(segments) > 1 or planned.answer else None
        deadline = None
        if planned.deadline_ms is not None:
            at_ns = now + planned.deadline_ms * MS
            deadline = Deadline(boot="", at_ns=at_ns, left_ms=planned.deadline_ms)
        request = Request(
            id=request_id,
            asked=planned.capability,
            capability=planned.capability,
            prompt_tokens=segments[0][1] if len(segments) == 1 else planned.prompt_tokens,
            max_tokens=planned.max_tokens,
            offered_ns=now,
            lifetime_ms=self._lifetime_ms,
            attributes=planned.attributes,
            priority=planned.priority,
            deadline=deadline,
            affinity=affinity,
            first_epoch=self.machine.epoch,
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

    def _perform(self, effect: Command) -> None:
        if isinstance(effect, Finish):
            self._settle(effect.id, effect.outcome)

    def _settle(self, request_id: str, outcome: Outcome) -> None:
        self.settled += 1
        planned = self._planned.pop(request_id, None)
        if planned is not None:
            self._go_on(planned, completed=outcome.kind is OutcomeKind.COMPLETED)
        self._end_if_done()

    def _go_on(self, planned: PlannedRequest, *, completed: bool) -> None:
        """Plan the request that follows one that has ended, if there is one."""
        now_ns = self._kernel.now - self._start_ns
        due_ns = self._course.after(planned, now_ns, completed=completed)
        if due_ns is not None:
            following = self._course.following(planned, due_ns)
            self._kernel.at(self._start_ns + due_ns, self._offer, following)

    @property
    def _start_ns(self) -> int:
        assert self.started_ns is not None, "the traffic has not begun"
        return self.started_ns

    def _end_if_done(self) -> None:
        if not self._course.left and self.settled == self.offered and not self._stopped:
            self.end("completed")
