"""The checks bite: each fault planted in the real machines violates the invariant that it names.

Days are tried in a fixed order until one catches the fault; the same day without it must be clean.
"""

from __future__ import annotations

import itertools

import pytest
from faults import FAULTS, Fault
from stories import DAYS
from violations import INVARIANTS, Violated

KINDS = ("crowded", "restarting", "crashing", "broken")
SEEDS = 200


def caught(fault: Fault) -> tuple[str, int, Violated] | None:
    """The first day on which the fault breaks its own invariant."""
    for seed, kind in itertools.product(range(SEEDS), KINDS):
        try:
            with fault.planted():
                DAYS[kind].live(seed)
        except Violated as violated:
            if violated.invariant == fault.invariant:
                return kind, seed, violated
        except Exception:  # noqa: BLE001 - a machine that breaks is not yet a check that bites
            continue
    return None


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_every_planted_fault_is_caught_by_name(fault: Fault) -> None:
    found = caught(fault)

    assert found is not None, f"{fault.name} is not caught"
    kind, seed, violated = found
    assert str(violated).startswith(f"{fault.invariant} {INVARIANTS[fault.invariant]}: ")
    DAYS[kind].live(seed)


@pytest.mark.parametrize("kind", DAYS)
def test_without_a_fault_all_days_are_clean(kind: str) -> None:
    for seed in range(60):
        DAYS[kind].live(seed)
