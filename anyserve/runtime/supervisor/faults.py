"""The faults of a scenario: when each is due (pure), and carrying them out on real processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol, cast

from anyserve.core.events import FaultInjected
from anyserve.core.spec import FaultSpec
from anyserve.errors import AnyServeError, UsageError
from anyserve.runtime.node_control import ConnectionFault, Kind

_LOG = logging.getLogger(__name__)
_NS_PER_S: Final = 1_000_000_000


class TargetKind(Enum):
    """What a fault hits."""

    REPLICA = "replica"
    WORKER = "worker"
    BROKER = "broker"
    SCHEDULER = "scheduler"


@dataclass(frozen=True, slots=True)
class Target:
    """The process of a replica, or its worker's; broker and scheduler have no id."""

    kind: TargetKind
    id: str = ""


class FaultAct(Enum):
    """One thing done to a target."""

    KILL = "kill"
    HANG = "hang"
    RESUME = "resume"
    SLOW = "slow"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    DISTURB = "disturb"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class FaultStep:
    """One act, `at_ns` after the start of traffic. `fault` is where it comes from."""

    at_ns: int
    act: FaultAct
    target: Target
    fault: FaultSpec
    factor: float = 1.0
    how: ConnectionFault | None = None
    down_s: float = 0.0

    @property
    def said(self) -> str:
        """What the event of this step calls it."""
        if self.act is FaultAct.CRASH:
            return self.fault.action
        if self.how is not None:
            return self.how.kind if self.how.on else f"{self.how.kind} ends"
        if self.act is FaultAct.SLOW and self.factor == 1.0:
            return "slow ends"
        return str(self.act.value)


_SIMPLE: Final = {
    act.value: act for act in (FaultAct.KILL, FaultAct.HANG, FaultAct.SLOW, FaultAct.DRAIN)
}
_ENDS: Final = {
    FaultAct.HANG: FaultAct.RESUME,
    FaultAct.SLOW: FaultAct.SLOW,
    FaultAct.DRAIN: FaultAct.UNDRAIN,
}
_ON_CONNECTION: Final = ("partition", "drop", "duplicate", "delay")
_RESTARTS: Final = {
    "restart-broker": Target(TargetKind.BROKER),
    "restart-scheduler": Target(TargetKind.SCHEDULER),
}


def parse_target(text: str) -> Target:
    """Read `replica s1`, `replica:s1`, `worker s1`, `worker:s1`, or `s1` for the replica.

    Raises:
        UsageError: it is none of these.
    """
    words = text.replace(":", " ").split()
    if len(words) == 1:
        return Target(TargetKind.REPLICA, words[0])
    kinds = {kind.value: kind for kind in (TargetKind.REPLICA, TargetKind.WORKER)}
    if len(words) == 2 and words[0] in kinds:  # noqa: PLR2004 - kind and id
        return Target(kinds[words[0]], words[1])
    message = f"a fault hits `replica ID` or `worker ID`, not {text!r}"
    raise UsageError(message, code="fault_target")


def plan_faults(faults: Iterable[FaultSpec]) -> tuple[FaultStep, ...]:
    """All steps in order of time; a fault with a duration has a step that ends it.

    Raises:
        UsageError: an action or target that cannot be carried out.
    """
    steps = [step for fault in faults for step in _steps_of(fault)]
    return tuple(sorted(steps, key=lambda step: step.at_ns))


def _steps_of(fault: FaultSpec) -> Iterator[FaultStep]:
    if fault.action in _SIMPLE:
        yield from _simple_steps(fault, _SIMPLE[fault.action])
    elif fault.action in _ON_CONNECTION:
        yield from _connection_steps(fault)
    elif fault.action in _RESTARTS:
        down_s = fault.options.get("down_ns", 0) / _NS_PER_S
        target = _RESTARTS[fault.action]
        yield FaultStep(fault.at_ns, FaultAct.CRASH, target, fault, down_s=down_s)
    else:
        hint = f"known: {', '.join((*_SIMPLE, *_ON_CONNECTION, *_RESTARTS))}"
        message = f"there is no fault {fault.action!r}"
        raise UsageError(message, code="fault_unavailable", hint=hint)


def _simple_steps(fault: FaultSpec, act: FaultAct) -> Iterator[FaultStep]:
    target = parse_target(fault.target)
    factor = 1.0 if fault.factor is None else fault.factor
    yield FaultStep(fault.at_ns, act, target, fault, factor)
    if fault.duration_ns is not None and act in _ENDS:
        yield FaultStep(fault.at_ns + fault.duration_ns, _ENDS[act], target, fault)


def _connection_steps(fault: FaultSpec) -> Iterator[FaultStep]:
    target = parse_target(fault.target)
    kind = cast("Kind", fault.action)
    how = ConnectionFault(
        kind=kind,
        share=fault.options.get("share", 0.0),
        by_s=fault.options.get("by_ns", 0) / _NS_PER_S,
        jitter_s=fault.options.get("jitter_ns", 0) / _NS_PER_S,
    )
    yield FaultStep(fault.at_ns, FaultAct.DISTURB, target, fault, how=how)
    if fault.duration_ns is not None:
        over = ConnectionFault(kind=kind, on=False)
        at_ns = fault.at_ns + fault.duration_ns
        yield FaultStep(at_ns, FaultAct.DISTURB, target, fault, how=over)


class FaultHands(Protocol):
    """What carries a step out on the cluster. Each raises an AnyServeError where it cannot."""

    def kill(self, target: Target) -> None:
        """SIGKILL."""

    def hang(self, target: Target) -> None:
        """SIGSTOP."""

    def resume(self, target: Target) -> None:
        """SIGCONT."""

    def slow(self, replica: str, factor: float) -> None:
        """Slow its engine down."""

    def drain(self, replica: str, *, on: bool) -> None:
        """Drain it, or let it take work again."""

    async def disturb(self, replica: str, how: ConnectionFault) -> None:
        """Do it to its connection."""

    def crash(self, name: str, down_s: float) -> None:
        """SIGKILL a process, the broker's too, and start it again after `down_s`."""


class FaultExecutor:
    """Carries out planned steps on their time and says so.

    `now_ns` is the monotonic clock the start of traffic is given in.
    """

    def __init__(
        self,
        steps: tuple[FaultStep, ...],
        hands: FaultHands,
        emit: Callable[[FaultInjected], None],
        *,
        now_ns: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._steps = steps
        self._hands = hands
        self._emit = emit
        self._now_ns = now_ns
        self._sleep = sleep

    async def run(self, started_ns: int) -> None:
        """Carry out all steps, counted from `started_ns`. Cancel it to leave out the rest."""
        for step in self._steps:
            wait_ns = started_ns + step.at_ns - self._now_ns()
            if wait_ns > 0:
                await self._sleep(wait_ns / _NS_PER_S)
            self._emit(await self._carry_out(step))

    async def _carry_out(self, step: FaultStep) -> FaultInjected:
        detail = ""
        try:
            await act(self._hands, step)
        except AnyServeError as error:
            # The scenario's expectations decide whether that matters; the log must say it.
            _LOG.warning("fault %s %s: %s", step.said, step.fault.target, error.message)
            detail = f"not carried out: {error.message}"
        return FaultInjected(
            action=step.said, target=step.fault.target, line=step.fault.line, detail=detail
        )


async def act(hands: FaultHands, step: FaultStep) -> None:
    """Carry out one step."""
    target = step.target
    match step.act:
        case FaultAct.KILL:
            hands.kill(target)
        case FaultAct.HANG:
            hands.hang(target)
        case FaultAct.RESUME:
            hands.resume(target)
        case FaultAct.SLOW:
            hands.slow(target.id, step.factor)
        case FaultAct.DRAIN:
            hands.drain(target.id, on=True)
        case FaultAct.UNDRAIN:
            hands.drain(target.id, on=False)
        case FaultAct.DISTURB:
            assert step.how is not None
            await hands.disturb(target.id, step.how)
        case FaultAct.CRASH:
            hands.crash(target.kind.value, step.down_s)
