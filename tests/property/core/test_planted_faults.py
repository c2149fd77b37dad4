"""The checks bite: each fault planted in the real machines violates the invariant that it names.

Days are tried in a fixed order until one catches the fault, the one that did last first where they
are rare; the same day without it must be clean.
"""

from __future__ import annotations

import itertools

import pytest
from faults import FAULTS, Fault
from stories import DAYS
from violations import INVARIANTS, Violated

from anyserve.core.effects import OutcomeKind
from anyserve.core.messages import Code
from anyserve.core.scheduler import Scheduler

REACHED = {
    None, Code.CLIENT_CANCELLED, Code.DEADLINE_EXCEEDED, Code.DELEGATION_EXHAUSTED, Code.QUEUE_FULL,
    Code.NO_REPLICA, Code.REPLICA_LOST, Code.TOO_LONG, Code.UNKNOWN_CAPABILITY, Code.WORKER_DIED,
}  # fmt: skip
"""How requests end on these days; None: with all their tokens."""
KINDS = ("crowded", "restarting", "crashing", "broken")
SEEDS = 600
FOUND = {
    "stale epoch not learnt": (432, "restarting"),
    "epoch ignored by a replica": (52, "restarting"),
    "rung forgotten on recovery": (121, "restarting"),
    "recovered request refused for fullness": (42, "crowded"),
    "deadline ignored by the scheduler": (45, "restarting"),
}
"""Days that caught faults which most do not: tried first, to save the search."""


def caught(fault: Fault) -> tuple[str, int, Violated] | None:
    """The first day on which the fault breaks its own invariant."""
    known = [FOUND[fault.name]] if fault.name in FOUND else []
    for seed, kind in itertools.chain(known, itertools.product(range(SEEDS), KINDS)):
        try:
            with fault.planted():
                DAYS[kind].live(seed)
        except Violated as violated:
            if violated.invariant == fault.invariant:
                return kind, seed, violated
        except Exception as error:
            text = f"{fault.name}: a machine broke on the {kind} day {seed}, before any check bit"
            raise AssertionError(text) from error
    return None


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_every_planted_fault_is_caught_by_name(fault: Fault) -> None:
    found = caught(fault)

    assert found is not None, f"{fault.name} is not caught"
    kind, seed, violated = found
    assert str(violated).startswith(f"{fault.invariant} {INVARIANTS[fault.invariant]}: ")
    DAYS[kind].live(seed)


def test_a_fault_that_merely_breaks_a_machine_is_not_taken_for_caught() -> None:
    def broken(_original: object, *_args: object) -> None:
        raise KeyError("a bug")

    fault = Fault("handler that raises", 1, ((Scheduler, "_on_submit", broken),))

    with pytest.raises(AssertionError, match="handler that raises: a machine broke on the"):
        caught(fault)


def test_the_days_reach_what_the_invariants_are_about() -> None:
    """A check over days on which nothing of it happens would prove nothing."""
    worlds = [DAYS[kind].live(seed) for kind in DAYS for seed in range(40)]

    pasts = [past for world in worlds for past in world.ghost.pasts.values()]
    outcomes = [outcome for past in pasts for outcome in past.outcomes]
    assert {outcome.kind for outcome in outcomes} == set(OutcomeKind)
    assert {outcome.code for outcome in outcomes} >= REACHED
    assert {len(past.delegations) for past in pasts} == {0, 1, 2}
    assert {world.spec.delegation.limit for world in worlds} == {0, 1, 2}
    assert any(past.forgotten for past in pasts), "no journal was lost while a request was open"
    assert any(len(past.bound) > 2 for past in pasts)
    assert any(past.refusals for past in pasts)
    assert any(past.returns for past in pasts)


@pytest.mark.parametrize("kind", DAYS)
def test_without_a_fault_all_days_are_clean(kind: str) -> None:
    for seed in range(60):
        DAYS[kind].live(seed)
