from __future__ import annotations

import asyncio
from typing import Any

import pytest

from anyserve.core.events import FaultInjected
from anyserve.core.spec import FaultSpec
from anyserve.errors import AnyServeError, UsageError
from anyserve.runtime.node_control import ConnectionFault
from anyserve.runtime.supervisor.faults import (
    FaultAct,
    FaultExecutor,
    Target,
    TargetKind,
    parse_target,
    plan_faults,
)
from anyserve.workload.schema import FAULT_ACTIONS

S = 1_000_000_000


class Clock:
    """A clock that jumps by what is slept."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns

    def read(self) -> int:
        return self.now_ns

    async def sleep(self, wait_s: float) -> None:
        self.now_ns += round(wait_s * S)
        await asyncio.sleep(0)


class Hands:
    """Writes down what is done, and when."""

    def __init__(self, clock: Clock) -> None:
        self.done: list[tuple[Any, ...]] = []
        self._clock = clock

    def _note(self, *what: Any) -> None:
        self.done.append((self._clock.now_ns / S, *what))

    def kill(self, target: Target) -> None:
        if target.id == "gone":
            raise AnyServeError("replica gone does not run now", code="not_running")
        self._note("kill", target.kind.value, target.id)

    def hang(self, target: Target) -> None:
        self._note("hang", target.kind.value, target.id)

    def resume(self, target: Target) -> None:
        self._note("resume", target.kind.value, target.id)

    def slow(self, replica: str, factor: float) -> None:
        self._note("slow", replica, factor)

    def drain(self, replica: str, *, on: bool) -> None:
        self._note("drain", replica, on)

    async def disturb(self, replica: str, how: ConnectionFault) -> None:
        self._note(how.kind, replica, how.on, how.share, how.by_s, how.jitter_s)

    def crash(self, name: str, down_s: float) -> None:
        self._note("crash", name, down_s)


async def carry_out(*faults: FaultSpec) -> tuple[list[tuple[Any, ...]], list[FaultInjected]]:
    clock = Clock(100 * S)
    hands = Hands(clock)
    said: list[FaultInjected] = []
    executor = FaultExecutor(
        plan_faults(faults), hands, said.append, now_ns=clock.read, sleep=clock.sleep
    )
    await executor.run(started_ns=99 * S)
    return hands.done, said


async def test_each_fault_acts_on_its_time_and_ends_on_its_time() -> None:
    done, _ = await carry_out(
        FaultSpec(at_ns=20 * S, action="drain", target="s1", duration_ns=4 * S),
        FaultSpec(at_ns=5 * S, action="hang", target="worker s1", duration_ns=17 * S),
        FaultSpec(at_ns=6 * S, action="slow", target="h1", duration_ns=2 * S, factor=3.0),
        FaultSpec(at_ns=7 * S, action="kill", target="replica:h1"),
    )
    assert done == [
        (104.0, "hang", "worker", "s1"),
        (105.0, "slow", "h1", 3.0),
        (106.0, "kill", "replica", "h1"),
        (107.0, "slow", "h1", 1.0),
        (119.0, "drain", "s1", True),
        (121.0, "resume", "worker", "s1"),
        (123.0, "drain", "s1", False),
    ]


async def test_the_end_of_a_fault_is_said_as_its_end() -> None:
    _, said = await carry_out(
        FaultSpec(at_ns=S, action="slow", target="s1", duration_ns=S, factor=3.0),
        FaultSpec(at_ns=3 * S, action="drain", target="s1", duration_ns=S),
    )
    assert [one.action for one in said] == ["slow", "slow ends", "drain", "undrain"]


async def test_fault_without_duration_stays() -> None:
    done, _ = await carry_out(FaultSpec(at_ns=S, action="hang", target="s1"))
    assert [what[1] for what in done] == ["hang"]


async def test_fault_whose_time_is_past_acts_at_once() -> None:
    done, _ = await carry_out(FaultSpec(at_ns=0, action="kill", target="s1"))
    assert done == [(100.0, "kill", "replica", "s1")]


async def test_every_fault_is_said_with_its_line_and_a_failed_one_with_the_reason() -> None:
    _, said = await carry_out(
        FaultSpec(at_ns=S, action="kill", target="replica gone", line=22),
        FaultSpec(at_ns=2 * S, action="kill", target="replica s1", line=23),
    )
    detail = "not carried out: replica gone does not run now"
    assert said == [
        FaultInjected(action="kill", target="replica gone", line=22, detail=detail),
        FaultInjected(action="kill", target="replica s1", line=23),
    ]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("s1", Target(TargetKind.REPLICA, "s1")),
        ("replica s1", Target(TargetKind.REPLICA, "s1")),
        ("worker:s1", Target(TargetKind.WORKER, "s1")),
    ],
)
def test_targets(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["", "scheduler s1", "worker s1 s2"])
def test_other_targets_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="replica ID"):
        parse_target(text)


async def test_faults_of_the_connection_end_and_restarts_do_not() -> None:
    done, said = await carry_out(
        FaultSpec(at_ns=2 * S, action="partition", target="replica s1", duration_ns=S),
        FaultSpec(at_ns=4 * S, action="drop", target="replica s1", options={"share": 0.1}),
        FaultSpec(
            at_ns=5 * S,
            action="delay",
            target="replica h1",
            duration_ns=S,
            options={"by_ns": S // 20, "jitter_ns": S // 100},
        ),
        FaultSpec(at_ns=7 * S, action="restart-broker", target="broker", options={"down_ns": S}),
        FaultSpec(at_ns=8 * S, action="restart-scheduler", target="scheduler"),
    )
    assert done == [
        (101.0, "partition", "s1", True, 0.0, 0.0, 0.0),
        (102.0, "partition", "s1", False, 0.0, 0.0, 0.0),
        (103.0, "drop", "s1", True, 0.1, 0.0, 0.0),
        (104.0, "delay", "h1", True, 0.0, 0.05, 0.01),
        (105.0, "delay", "h1", False, 0.0, 0.0, 0.0),
        (106.0, "crash", "broker", 1.0),
        (107.0, "crash", "scheduler", 0.0),
    ]
    assert [one.action for one in said] == [
        "partition",
        "partition ends",
        "drop",
        "delay",
        "delay ends",
        "restart-broker",
        "restart-scheduler",
    ]


def test_a_fault_that_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="flood"):
        plan_faults([FaultSpec(at_ns=0, action="flood", target="s1")])


def test_every_act_is_reachable_and_every_action_of_a_scenario_is_taken() -> None:
    faults = [
        FaultSpec(at_ns=0, action=action, target="s1", duration_ns=1) for action in FAULT_ACTIONS
    ]
    assert {step.act for step in plan_faults(faults)} == set(FaultAct)
