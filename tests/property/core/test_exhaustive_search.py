"""Invariants 1 to 8 in every state that a small system can reach, over core's own machines.

`docs/proofs.md` says what is searched and how; `ANYSERVE_PROPERTY=long` searches larger systems.
"""

from __future__ import annotations

import os

import pytest
from faults import FAULTS
from search import Search, represented, search
from small_systems import LARGE, REDUCED, SYSTEMS
from small_world import SmallWorld
from spent import Spent
from violations import INVARIANTS

from anyserve.core.scheduler import Scheduler

DELEGATED = {"limit 0": 0, "limit 2, a rung is lost": 2}
"""How often a request is delegated at most, where that is not once."""
LONG = os.environ.get("ANYSERVE_PROPERTY") == "long"
BY_NAME = {fault.name: fault for fault in FAULTS}
BITES = {
    "delegation not counted": ("wrong door", 3),
    "counters not journalled": ("wrong door", 3),
    "hop count trusted from the message": ("a drain", 6),
    "drain counted as delegation": ("a drain", 6),
    "crash counted as delegation": ("wrong door", 11),
    "journal written after the messages": ("a worker dies", 7),
    "journal not read": ("the scheduler dies", 11),
    "second outcome after a repeated end": ("wrong door", 7),
    "repeated delegation counted after a restart": ("the scheduler dies", 6),
    "settled request run again": ("wrong door", 9),
    "any capability started": ("limit 0", 2),
    "context limit ignored": ("too long", 2),
    "stale incarnation accepted by a replica": ("a replica returns", 7),
}
"""Planted faults, the system that shows each, and the number of steps of its shortest story."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_state_of_a_small_system_keeps_the_invariants(name: str) -> None:
    world = SmallWorld(SYSTEMS[name])
    whole = Search(world)
    whole.run()

    print(f"{name}: {whole.found}")  # noqa: T201 - the counts are part of the proof
    assert whole.found.complete, str(whole.found)
    assert whole.found.ends > 0
    assert whole.found.delegations == DELEGATED.get(name, 1), "nothing of it happened"
    if not world.small.wakes:
        few = represented(world)
        print(f"{name}, reduced: {few.found}")  # noqa: T201
        assert few.found.complete, str(few.found)
        assert few.found.states < whole.found.states / 1.5
        assert few.memories() == whole.memories()


def test_without_a_second_look_a_reduced_search_misses_something() -> None:
    world = SmallWorld(SYSTEMS["a cancel"])
    whole, hasty = Search(world), Search(world, Spent(world))
    whole.run()
    hasty.run()

    assert hasty.found.complete
    assert hasty.memories() < whole.memories()
    assert represented(world).found.rounds > 1


@pytest.mark.skipif(not LONG, reason="ANYSERVE_PROPERTY=long searches larger systems")
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("name", [*LARGE, *REDUCED])
def test_every_state_of_a_larger_system_keeps_the_invariants(name: str) -> None:
    small = LARGE.get(name) or REDUCED[name]
    found = search(small, reduced=name in REDUCED)

    print(f"{name}: {found}")  # noqa: T201
    assert found.complete, str(found)
    assert found.delegations == (2 if "limit 2" in name else 1)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("reduced", [False, True], ids=["whole", "reduced"])
@pytest.mark.parametrize("name", BITES)
def test_a_planted_fault_is_found_with_a_shortest_story(name: str, *, reduced: bool) -> None:
    system, steps = BITES[name]
    with BY_NAME[name].planted():
        found = search(SYSTEMS[system], reduced=reduced)

    print(found)  # noqa: T201
    assert found.violation is not None, str(found)
    invariant = BY_NAME[name].invariant
    assert str(found.violation).startswith(f"{invariant} {INVARIANTS[invariant]}: ")
    if reduced:
        assert len(found.story) <= steps, str(found)  # an end may come before what is spent came
    else:
        assert len(found.story) == steps, str(found)
    assert not found.complete


def test_all_faults_of_the_delegation_bound_are_among_them() -> None:
    assert {fault.name for fault in FAULTS if fault.invariant == 1} <= set(BITES)


def test_a_machine_that_breaks_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def _on_delegate(*_args: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Scheduler, "_on_delegate", _on_delegate)

    found = search(SYSTEMS["wrong door"])

    assert isinstance(found.broke, KeyError)
    assert not found.complete
    assert "Delegate" in found.story[-1]
