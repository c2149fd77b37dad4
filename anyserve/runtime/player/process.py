"""Offers each planned request at its time (open loop) and waits for all outcomes.

Its control socket takes the rate: see `anyserve.workload.pace` for what a change means.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from anyserve.core.effects import OutcomeKind
from anyserve.core.events import PhaseStarted, RunEnded, RunStarted, TrafficRate
from anyserve.core.messages import Code
from anyserve.runtime.control import LineServer
from anyserve.runtime.node_control import RateNode, check_rate
from anyserve.runtime.origin import Draft, Handle, OriginClient
from anyserve.runtime.player.plan_file import read_plan
from anyserve.runtime.player.prompts import Prompts
from anyserve.runtime.process import NodeConfig, Stop
from anyserve.runtime.wire import encode
from anyserve.telemetry.log import EventLogWriter
from anyserve.workload.course import Course
from anyserve.workload.pace import Pace
from anyserve.workload.traffic import PlannedRequest, TrafficPlan

_LOG = logging.getLogger(__name__)
LEAD_S: Final = 0.2
"""Between the start of the clock and the first request that may be due."""
AHEAD: Final = 64
"""Requests whose prompts are made before they are due."""
FLUSH_S: Final = 0.5
DRAIN_S: Final = 25.0
"""How long running requests may go on after the wish to stop; below the supervisor's grace."""


class PlayerOptions(msgspec.Struct, frozen=True):
    """What the player reads of `NodeConfig.extra`."""

    run: str = ""
    scenario: str = ""
    record_text: bool = False


class TextRecord(msgspec.Struct, frozen=True):
    """One line of `texts.jsonl`, written only where recording text was asked for."""

    id: str
    capability: str
    text: str


async def serve(config: NodeConfig, stop: Stop) -> int:
    """Play the whole plan, or until asked to stop.

    Raises:
        StartError: no broker, no permission, or no scheduler.
        UsageError: the plan cannot be read.
    """
    options = msgspec.convert(config.extra, PlayerOptions)
    plan = read_plan(Path(config.plan_path or ""))
    prompts = await asyncio.to_thread(Prompts, config.cluster)
    run_dir = Path(config.run_dir)
    with EventLogWriter(run_dir / f"origin-{config.id}.jsonl") as log:
        client = OriginClient(
            address=config.broker,
            credential=config.credential,
            prefix=config.prefix,
            name=config.id,
            cluster=config.cluster,
            incarnation=config.incarnation,
            boot=config.boot_id,
            tee=log.write,
        )
        texts = TextFile(run_dir / "texts.jsonl", prompts) if options.record_text else None
        try:
            await client.start()
            flusher = asyncio.create_task(_keep_flushing(log), name="flush-log")
            play = _Play(client, plan, prompts, options, texts)
            control = _control_server(config, play)
            try:
                if control is not None:
                    await control.start()
                await play.run(stop)
            finally:
                flusher.cancel()
                if control is not None:
                    await control.close()
        finally:
            await client.close()
            if texts is not None:
                texts.close()
    return 0


def _control_server(config: NodeConfig, play: _Play) -> LineServer | None:
    """Takes changes of the rate; None for a player without a supervisor."""
    if config.control_path is None:
        return None

    async def handle(request: RateNode) -> None:
        check_rate(request.factor)
        play.change_rate(request.factor)

    return LineServer(Path(config.control_path), handle, RateNode)


class TextFile:
    """Writes what the model answered, per request."""

    def __init__(self, path: Path, prompts: Prompts) -> None:
        self._file = path.open("ab")
        self._prompts = prompts

    def write(self, capability: str, handle: Handle) -> None:
        """Add the answer of a request that has ended."""
        tokenizer = self._prompts.tokenizer(capability)
        tokens = handle.tokens.get(0, [])
        text = tokenizer.decode(tokens) if tokenizer is not None else f"{len(tokens)} tokens"
        self._file.write(encode(TextRecord(handle.id, capability, text)) + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Play:
    def __init__(
        self,
        client: OriginClient,
        plan: TrafficPlan,
        prompts: Prompts,
        options: PlayerOptions,
        texts: TextFile | None,
    ) -> None:
        self._client = client
        self._plan = plan
        self._prompts = prompts
        self._options = options
        self._texts = texts
        self._open: set[asyncio.Future[object]] = set()
        self._course = Course(plan)
        self._following: set[asyncio.Task[None]] = set()
        self._answers: dict[int, list[int]] = {}
        """Of requests whose answer a later prompt holds, by the answer's name."""
        self._start_ns = time.monotonic_ns() + round(LEAD_S * 1e9)
        self._pace = Pace(self._start_ns)
        self._changed = asyncio.Event()

    def change_rate(self, factor: float) -> None:
        """Offer what is not due yet `factor` times as fast as planned; 0 waits."""
        now_ns = time.monotonic_ns()
        self._pace.change(factor, now_ns)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        at_s = self._pace.plan_ns(now_ns) / 1e9
        self._client.emit(TrafficRate(factor=factor, planned_at_s=round(at_s, 3)), t=now_ns)

    async def run(self, stop: Stop) -> None:
        planned_s = max((phase.end_ns for phase in self._plan.phases), default=0) / 1e9
        self._client.emit(
            RunStarted(
                run=self._options.run,
                scenario=self._options.scenario,
                seed=self._plan.seed,
                planned_requests=len(self._plan.requests),
                planned_s=planned_s,
            ),
            t=self._start_ns,
        )
        phases = asyncio.create_task(self._announce_phases(), name="phases")
        offering = asyncio.create_task(self._offer_all(), name="offering")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait((offering, stopping), return_when=asyncio.FIRST_COMPLETED)
            if offering.done():
                await offering
            offering.cancel()
            reason = await self._wait_for_outcomes(stop, stopping)
        finally:
            phases.cancel()
            stopping.cancel()
        self._client.emit(RunEnded(reason=reason))

    async def _wait_for_outcomes(self, stop: Stop, stopping: asyncio.Task[None]) -> str:
        while (self._open or self._following) and not stop.requested:
            waited_for: set[asyncio.Future[object]] = {*self._open, *self._following, stopping}  # type: ignore[arg-type]
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        for task in self._following:
            task.cancel()
        if not stop.requested:
            return "completed"
        if self._open:
            await asyncio.wait(self._open, timeout=DRAIN_S)
        self._client.cancel_all(Code.SHUTDOWN)
        return f"stopped: {stop.reason}"

    async def _announce_phases(self) -> None:
        for phase in self._plan.phases:
            await self._until_due(phase.start_ns)
            seconds = (phase.end_ns - phase.start_ns) / 1e9
            self._client.emit(PhaseStarted(name=phase.name, planned_s=seconds))

    async def _offer_all(self) -> None:
        """Offer every request at its time; prompts are made ahead, off the loop."""
        ready: asyncio.Queue[tuple[PlannedRequest, Draft] | None] = asyncio.Queue(AHEAD)
        making = asyncio.create_task(self._make_drafts(ready), name="make-drafts")
        try:
            while (item := await ready.get()) is not None:
                planned, draft = item
                due_ns = await self._until_due(planned.at_ns)
                self._offer(planned, replace(draft, intended_ns=due_ns))
            await making
        finally:
            making.cancel()

    async def _until_due(self, plan_ns: int) -> int:
        """Return once this moment of the plan has come, and when it came on the clock."""
        while True:
            due_ns = self._pace.due_ns(plan_ns)
            left_s = None if due_ns is None else (due_ns - time.monotonic_ns()) / 1e9
            if due_ns is not None and left_s is not None and left_s <= 0:
                return due_ns
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._changed.wait()

    async def _make_drafts(self, ready: asyncio.Queue[tuple[PlannedRequest, Draft] | None]) -> None:
        try:
            for some in _chunks(self._course.timed(), AHEAD // 4):
                drafts = await asyncio.to_thread(self._draft_all, some)
                for planned, draft in zip(some, drafts, strict=True):
                    await ready.put((planned, draft))
        finally:
            await ready.put(None)

    def _draft_all(self, some: Sequence[PlannedRequest]) -> list[Draft]:
        return [self._prompts.draft(planned) for planned in some]

    def _follow(self, planned: PlannedRequest, handle: Handle) -> None:
        """A request has ended: send the one that waited for it, if there is one, in its time."""
        completed = handle.outcome.result().kind is OutcomeKind.COMPLETED
        if planned.answer:
            self._answers[planned.answer] = handle.tokens.get(0, [])
        now_ns = self._pace.plan_ns(time.monotonic_ns())
        due_ns = self._course.after(planned, now_ns, completed=completed)
        if due_ns is None:
            return
        following = self._course.following(planned, due_ns)
        task = asyncio.create_task(self._send(following, due_ns), name="following")
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _send(self, planned: PlannedRequest, due_ns: int) -> None:
        draft = await asyncio.to_thread(self._prompts.draft, planned, dict(self._answers))
        came_ns = await self._until_due(due_ns)
        self._offer(planned, replace(draft, intended_ns=came_ns))

    def _offer(self, planned: PlannedRequest, draft: Draft) -> None:
        self._course.sent()
        handle = self._client.offer(draft)
        outcome: asyncio.Future[object] = handle.outcome  # type: ignore[assignment]
        self._open.add(outcome)

        def on_outcome(_: asyncio.Future[object]) -> None:
            self._open.discard(outcome)
            self._follow(planned, handle)
            if self._texts is not None:
                self._texts.write(planned.capability, handle)

        outcome.add_done_callback(on_outcome)


async def _keep_flushing(log: EventLogWriter) -> None:
    while True:
        await asyncio.sleep(FLUSH_S)
        log.flush()


def _chunks(requests: Sequence[PlannedRequest], size: int) -> Iterator[Sequence[PlannedRequest]]:
    for start in range(0, len(requests), size):
        yield requests[start : start + size]
