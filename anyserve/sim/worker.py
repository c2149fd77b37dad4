"""A worker in virtual time: `core.engine`'s model, and what its steps tell the replica.

The tokens of an attempt are told when its first one is made, when it ends, and when something is
about to happen to it (`flush`): never one by one. The gaps between them are counted step by step,
so the inter-token latencies are those of the steps.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from anyserve.core.effects import StartWork
from anyserve.core.engine.model import EngineModel
from anyserve.core.engine.product import product
from anyserve.core.engine.sequence import Sequence
from anyserve.core.engine.stretch import PS_PER_NS, Stretch, to_ns
from anyserve.core.inputs import Delta, Stepped
from anyserve.core.messages import Code
from anyserve.core.order import NEVER
from anyserve.sim.agenda import Doer, Entry
from anyserve.sim.engines import EngineSetup
from anyserve.sim.host import Host
from anyserve.sim.kernel import Kernel, engine_lane
from anyserve.sim.step_gaps import Gaps, StepGaps
from anyserve.workload.traffic import Segment

_VECTOR: Final = msgspec.Raw(b"{}")
_SEED_STEP: Final = 997
"""Between the jitter of one engine and the next."""
_TOLD: Final = -1
_NO_MARK: Final = -1
_FOUR_DIGITS: Final = 10_000

_ONE: Final = [0]
"""The first token of an answer, which every request has."""


@lru_cache(maxsize=65536)
def _tokens(count: int) -> list[int]:
    """So many tokens; nobody changes a delta's list, so all of one length can be the same."""
    return [0] * count


class Job:
    """An attempt in the engine."""

    __deletable__ = ["sequence"]  # noqa: RUF012 - for mypyc, which reads it so
    __slots__ = (
        "attempt", "cancelled", "gaps", "id", "mark", "number", "over", "resumed", "scheduled_ns",
        "sent", "sequence", "stalled_ps",
    )  # fmt: skip

    def __init__(self, work: StartWork, number: int) -> None:
        self.number = number
        """How many came before it."""
        self.id = work.request.id
        self.attempt = work.attempt
        self.resumed = len(work.request.resume_ids)
        self.sequence: Sequence
        self.scheduled_ns = NEVER
        """When it was first given a place in a step; `_TOLD` once the replica knows."""
        self.sent = 0
        """Tokens that the replica was told of."""
        self.cancelled = False
        self.over = False
        """The replica knows its end."""
        self.gaps: Gaps | None = None
        """Of tokens that it was not told of yet, beside those since `mark`."""
        self.mark = _NO_MARK
        """Where the count of the engine's steps stood when the newest token that is in `gaps` was
        made."""
        self.stalled_ps: int | None = None
        """When its newest token was made, while it waits to be computed again."""

    def counted(self) -> Gaps:
        """`gaps`, to be added to."""
        if self.gaps is None:
            self.gaps = {}
        return self.gaps


class Worker(Doer):
    """One life of a worker. `feed` takes what the replica is told; `handover_ns` later the engine
    learns what the replica wants."""

    def __init__(
        self,
        kernel: Kernel,
        place: int,
        setup: EngineSetup,
        feed: Doer,
        *,
        exact: bool,
        handover_ns: int,
        host: Host | None = None,
    ) -> None:
        self._kernel = kernel
        self._lane = engine_lane(place)
        self._setup = setup
        self._feed = feed
        self._exact = exact
        self._host = host
        self._engine: EngineModel = setup.make(seed=place * _SEED_STEP)
        self._n_jobs = 0
        """Jobs so far."""
        self._handover_ns = handover_ns
        self._cancels: list[tuple[int, Job]] | None = None
        """Those to be told of, and when the engine learns it, where there are any."""
        self._call_due: Entry | None = None
        """The kernel is to call then: at the end of a stretch, or the begin of the next."""
        self._ends = False
        """Which of the two."""
        self._steps = StepGaps()
        """All steps so far."""
        self._last_end_ps = 0
        self._factor = 1.0
        self._hung_ps: int | None = None
        self._dead = False

    # --- what the replica wants ------------------------------------------------------------------

    def submit(self, work: StartWork, shared: tuple[Segment, ...]) -> None:
        """Take an attempt. `shared`: the texts that its prompt begins with."""
        request = work.request
        refusal = self._setup.refusal(request)
        if refusal:
            delta = Delta(
                id=request.id, attempt=work.attempt, done=True, error=refusal,
                error_code=Code.TOO_LONG,
            )  # fmt: skip
            self._later(delta)
            return
        job = Job(work, self._n_jobs)
        room = self._setup.room(request)
        if room == 0 and not self._setup.embeds:
            self._later(Delta(id=job.id, attempt=job.attempt, done=True, finish="length"))
            return
        self._n_jobs += 1
        now = self._kernel.now
        job.sequence = Sequence(
            owner=job,
            prompt=request.prompt_tokens + job.resumed,
            room=room,
            priority=request.priority,
            arrival=now,
            number=self._kernel.handled,
            shared=shared,
        )
        self._engine.add(job.sequence, self._handed_ps())
        self._arm(self._handover_ns)

    def cancel(self, request_id: str, attempt: int) -> None:
        """Stop an attempt at the next step boundary."""
        job = self._job_of(request_id, attempt)
        if job is not None and not job.cancelled:
            job.cancelled = True
            handed_ps = self._handed_ps()
            self._cancels = [*(self._cancels or ()), (handed_ps, job)]
            self._engine.abort(job.sequence, handed_ps)
            self._arm(self._handover_ns)

    def slow(self, factor: float) -> None:
        """From the next step on, each takes `factor` times as long."""
        self._factor = max(1.0, factor)
        self._cut()

    def hang(self) -> None:
        """Stop in its tracks; what is computed is computed later."""
        if self._hung_ps is None:
            self._cut()
            self._hung_ps = product(self._kernel.now, PS_PER_NS)
            self._call_off()

    def resume(self) -> None:
        """Go on where it hung: the step under way ends that much later."""
        if self._hung_ps is None:
            return
        late_ps = product(self._kernel.now, PS_PER_NS) - self._hung_ps
        self._hung_ps = None
        if self._engine.busy:
            self._engine.delay(late_ps)
        self._arm()

    def die(self) -> None:
        """It is gone with all it held."""
        self._dead = True
        self._call_off()
        for job in (*self._jobs(), *(job for _, job in self._cancels or ())):
            if not job.over:
                self._drop(job)
        if self._host is not None:
            self._host.leave(self)

    def share(self, busy: int, cores: int) -> None:
        """From the next step on, so many engines share the cores of the host."""
        self._engine.set_pace(self._setup.pace(busy, cores), self._stamp_ps())
        if self._engine.busy:
            self._arm()

    @property
    def hung(self) -> bool:
        """Whether it stands still."""
        return self._hung_ps is not None

    # --- what it tells ---------------------------------------------------------------------------

    def kv_usage(self) -> float | None:
        """Share of its KV blocks in use, as it last reported; None where it has none."""
        if self._setup.embeds:
            return None
        # As `round` with four digits, which would write the number down to read it again.
        return int(self._engine.kv_usage(self._now_ps()) * _FOUR_DIGITS + 0.5) / _FOUR_DIGITS

    def flush(self, only: tuple[str, int] | None = None) -> None:
        """Tell what has been made by now, of all attempts or of one."""
        jobs = self._jobs() if only is None else [self._job_of(*only)]
        now_ps = self._now_ps()
        deltas = []
        for job in jobs:
            if job is None or job.sent == 0 or job.cancelled:
                continue
            made = self._engine.tokens_at(job.sequence, now_ps)
            if made > job.sent:
                deltas.append(self._progress(job, made, self._steps_until(now_ps)))
        if deltas:
            self._feed.do(Stepped(deltas=deltas))

    def _job_of(self, request_id: str, attempt: int) -> Job | None:
        """This attempt, if the engine has it. It is rarely asked for: nothing is kept to find it
        by."""
        for job in self._jobs():
            if job.attempt == attempt and job.id == request_id:
                return job
        return None

    def _jobs(self) -> list[Job]:
        """Those that the engine has, in the order in which they came."""
        jobs: list[Job] = [sequence.owner for sequence in self._engine.sequences()]
        jobs.sort(key=_number)
        return jobs

    def _now_ps(self) -> int:
        return product(self._kernel.now, PS_PER_NS) if self._hung_ps is None else self._hung_ps

    def _stamp_ps(self) -> int:
        """This moment, to the engine: just after a step that ends with it, as the kernel calls
        engines first."""
        return product(self._kernel.now, PS_PER_NS) + self._engine.busy

    def _handed_ps(self) -> int:
        """When a wish of this moment reaches the engine."""
        return self._stamp_ps() + product(self._handover_ns, PS_PER_NS)

    # --- stepping --------------------------------------------------------------------------------

    def _arm(self, after_ns: int = 0) -> None:
        """See to it that the kernel calls when there is something to do; where the engine stands
        still, in so much time."""
        if self._dead or self._hung_ps is not None:
            return
        if self._engine.busy:
            due = to_ns(self._engine.end_ps)
            if self._call_due is None or due != self._call_due.time_ns:
                self._call(due, ends=True)
        elif self._call_due is None:
            self._call(self._kernel.now + after_ns, ends=False)

    def _call(self, due: int, *, ends: bool) -> None:
        """Have the kernel call at this time, and no longer at any other."""
        self._call_off()
        self._ends = ends
        self._call_due = self._kernel.engine_at(due, self._lane, self, None)

    def _call_off(self) -> None:
        """Not be called any more."""
        if self._call_due is not None:
            self._call_due.withdraw()
            self._call_due = None

    def do(self, what: Any) -> None:
        """See `Doer`: the kernel calls."""
        del what
        self._call_due = None
        if self._ends:
            self._end()
        else:
            self._begin()

    def _cut(self) -> None:
        """Let a stretch under way end with its present step."""
        if self._engine.busy:
            self._engine.cut(self._stamp_ps())
            self._arm()

    def _begin(self) -> None:
        self._tell_cancelled()
        self._start(max(product(self._kernel.now, PS_PER_NS), self._last_end_ps))

    def _end(self) -> None:
        stretch = self._engine.finish()
        self._steps.add_stretch(stretch, stretch.steps, self._last_end_ps)
        self._last_end_ps = stretch.end_ps
        if stretch.prefilled or stretch.finished:
            self._tell_ended(stretch)
        self._tell_cancelled()
        if self._factor == 1.0:
            self._start(stretch.end_ps)
        elif not self._dead:
            self._pause(stretch)

    def _pause(self, stretch: Stretch) -> None:
        """Slowed down, the next step begins later than this one ended."""
        if not self._engine.has_work_by(stretch.end_ps):
            self._await()
            return
        last_ps = stretch.end_ps - stretch.start_ps
        if stretch.steps > 1:
            last_ps = stretch.end_ps - stretch.step_end_ps(stretch.steps - 1)
        pause_ps = int(last_ps * (self._factor - 1.0))
        self._call(to_ns(stretch.end_ps + pause_ps), ends=False)

    def _tell_ended(self, stretch: Stretch) -> None:
        """Tell the first tokens that came at its end, then the last ones."""
        deltas: list[Delta] = []
        for sequence in stretch.prefilled:
            first = self._first(sequence.owner, stretch)
            if first is not None:
                deltas.append(first)
        for sequence in stretch.finished:
            if sequence not in stretch.prefilled:
                deltas.append(self._last(sequence.owner))  # noqa: PERF401 - another list costs more
        if deltas:
            self._feed.do(Stepped(deltas=deltas))

    def _start(self, at_ps: int) -> None:
        if self._dead or self._hung_ps is not None or self._engine.busy:
            return
        if self._host is not None and self._engine.has_work_by(at_ps):
            self._host.enter(self)
        single = self._exact or self._factor != 1.0
        stretch = self._engine.start(at_ps, 1 if single else None)
        if stretch is None:
            if self._host is not None:
                self._host.leave(self)
            self._await()
            return
        for sequence in stretch.preempted:
            self._stall(sequence.owner)
        for sequence in stretch.admitted:
            job: Job = sequence.owner
            if job.scheduled_ns == NEVER:
                job.scheduled_ns = to_ns(at_ps)
        self._arm()

    def _await(self) -> None:
        """Be called when the first of what is under way to the engine arrives."""
        next_ps = self._engine.waits_ps
        if next_ps is not None:
            self._call(to_ns(next_ps), ends=False)

    # --- counting gaps ---------------------------------------------------------------------------

    def _steps_until(self, now_ps: int) -> StepGaps:
        """All steps, with those of the stretch under way that have ended by now."""
        stretch = self._engine.stretch
        if stretch is None:
            return self._steps
        ended = 0
        while ended < stretch.steps and stretch.step_end_ps(ended + 1) <= now_ps:
            ended += 1
        if not ended:
            return self._steps
        steps = self._steps.copy()
        steps.add_stretch(stretch, ended, self._last_end_ps)
        return steps

    def _stall(self, job: Job) -> None:
        """It was preempted: its next token comes after it has been computed again."""
        if job.mark != _NO_MARK:
            self._steps.since(job.mark, job.counted())
            job.mark, job.stalled_ps = _NO_MARK, self._last_end_ps

    # --- deltas ----------------------------------------------------------------------------------

    def _first(self, job: Job, stretch: Stretch) -> Delta | None:
        """Its prompt is computed: for the first time, or again after a preemption."""
        sequence = job.sequence
        job.mark = self._steps.mark()
        if job.stalled_ps is not None:
            self._steps.add_to(job.counted(), stretch.end_ps - job.stalled_ps)
            job.stalled_ps = None
        done = sequence.finished
        if job.sent and not done:
            return None
        if self._setup.embeds:
            self._drop(job)
            scheduled_ns = self._scheduled_ns(job)
            return Delta(
                id=job.id, attempt=job.attempt, scheduled_ns=scheduled_ns,
                data=_VECTOR, finish="stop", done=True,
            )  # fmt: skip
        if done:
            return self._last(job)
        job.sent = 1
        scheduled_ns = self._scheduled_ns(job)
        return Delta(id=job.id, attempt=job.attempt, tokens=_ONE, scheduled_ns=scheduled_ns)

    def _last(self, job: Job) -> Delta:
        made = job.sequence.generated
        self._drop(job)
        return self._progress(job, made, self._steps, finish="length")

    def _progress(self, job: Job, made: int, steps: StepGaps, finish: str | None = None) -> Delta:
        """What was made since the replica was last told; with `finish` it is the last of it."""
        gaps, job.gaps = job.counted(), None
        if job.mark != _NO_MARK:
            steps.since(job.mark, gaps)
            job.mark = _NO_MARK if finish is not None else steps.mark()
        count, job.sent = made - job.sent, made
        return Delta(
            id=job.id,
            attempt=job.attempt,
            tokens=_tokens(count),
            scheduled_ns=self._scheduled_ns(job),
            gaps=gaps,
            finish=finish,
            done=finish is not None,
        )

    def _scheduled_ns(self, job: Job) -> int | None:
        """When it was first given a place in a step, the first time this is asked."""
        scheduled_ns = job.scheduled_ns
        if scheduled_ns in (NEVER, _TOLD):
            return None
        job.scheduled_ns = _TOLD
        return scheduled_ns

    def _tell_cancelled(self) -> None:
        if self._cancels is None:
            return
        now_ps = self._now_ps()
        cancels = self._cancels
        self._cancels = [cancel for cancel in cancels if cancel[0] > now_ps] or None
        deltas = []
        for handed_ps, job in cancels:
            if handed_ps <= now_ps and not job.over:
                made = self._engine.tokens_at(job.sequence, now_ps)
                self._drop(job)
                deltas.append(self._progress(job, made, self._steps, finish="cancelled"))
        if deltas:
            self._feed.do(Stepped(deltas=deltas))

    def _drop(self, job: Job) -> None:
        job.over = True
        del job.sequence  # which knows its job: nobody would free the two while gc is off

    def _later(self, delta: Delta) -> None:
        """Tell it once the worker has it: the replica is in the midst of starting it."""
        at_ns = self._kernel.now + self._handover_ns
        self._kernel.do_at(at_ns, self._feed, Stepped(deltas=[delta]))


def _number(job: Job) -> int:
    return job.number
