"""Every state of a small system: breadth first, each once, the way to it kept.

Breadth first means that the first violation found has a shortest story. A state in which nothing
can happen any more but mishaps is an end; from each end time may pass, and then all requests must
have ended and nothing may be held.

`reduced` searches leave out what makes no difference: letters that can do nothing any more
(`spent.py`), and states from which less can happen than from one that is known already, since a
duplicate has been used up to no effect.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from small_parts import ORIGIN, SCHEDULER, ReplicaPart, SchedulerPart
from small_world import DUPLICATES, Choice, Small, SmallWorld, State
from spent import Spent
from violations import Violated, in_words

PATIENCE = 400
"""Timers that may fire until all is over, before we say that it never will be."""
MISHAPS = frozenset(
    {"deliver twice", "drop", "die over", "kill", "kill worker", "cancel", "drain", "wake"}
)


@dataclass
class Found:
    """What a search came to. `complete`: every state was reached and none breaks an invariant."""

    states: int = 0
    transitions: int = 0
    ends: int = 0
    depth: int = 0
    rounds: int = 1
    """How often it was begun anew, since something left out may have mattered; with the last."""
    delegations: int = 0
    """The most that any request was delegated."""
    seconds: float = 0.0
    complete: bool = False
    violation: Violated | None = None
    broke: Exception | None = None
    """What a machine raised, where it did."""
    story: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = "complete" if self.complete else "not complete"
        counts = f"{self.states} states, {self.transitions} transitions, {self.ends} ends"
        text = f"{verdict}: {counts}, at most {self.depth} steps deep, {self.seconds:.1f} s"
        if self.violation is not None or self.broke is not None:
            text = "\n  ".join([str(self.violation or repr(self.broke)), *self.story, text])
        return text


def search(small: Small, *, most: int | None = None, reduced: bool = False) -> Found:
    """Visit every state of a small system, up to `most` of them; `reduced`: or one for several."""
    world = SmallWorld(small)
    if reduced:
        return represented(world, most=most).found
    whole = Search(world)
    whole.run(most)
    return whole.found


def represented(world: SmallWorld, *, most: int | None = None) -> Search:
    """A reduced search that left nothing out that matters: the last of as many as it takes."""
    spent, began, rounds = Spent(world), time.process_time(), 0
    while True:
        one, rounds = Search(world, spent), rounds + 1
        one.run(most)
        if not spent.reconsider():
            one.found.rounds = rounds
            one.found.seconds = time.process_time() - began
            return one


class Search:
    """One search through a world."""

    def __init__(self, world: SmallWorld, spent: Spent | None = None) -> None:
        self.world = world
        self.found = Found()
        self._spent = spent
        self._way: dict[State, tuple[State, Choice] | None] = {}

    def memories(self) -> set[tuple[object, ...]]:
        """What all processes and the observer remember together, in any state that was reached."""
        return {
            (state.scheduler, state.origin, *state.replicas, state.ghost, state.offered)
            for state in self._way
        }

    def run(self, most: int | None = None) -> None:
        """Search until there is nothing more to find, or `most` states are known."""
        found, began = self.found, time.process_time()
        start = self.world.begin()
        self._way[start] = None
        level = [start]
        try:
            while level and (most is None or len(self._way) < most):
                level = [after for state in level for after in self._expand(state)]
                found.depth += bool(level)
            found.complete = not level
        except _Stop:
            pass
        found.states = len(self._way)
        found.delegations = self.world.most_delegations
        found.seconds = time.process_time() - began

    def _expand(self, state: State) -> Iterator[State]:
        is_end = True
        for choice in self.world.choices(state):
            is_end = is_end and choice[0] in MISHAPS
            self.found.transitions += 1
            after = self._try(state, choice)
            if not self._is_known(after):
                self._way[after] = (state, choice)
                yield after
        if is_end:
            self.found.ends += 1
            self._calm_down(state)

    def _try(self, state: State, choice: Choice) -> State:
        try:
            after = self.world.after(state, choice)
        except Violated as violated:
            self.found.violation = violated
        except Exception as error:  # noqa: BLE001 - a machine that breaks is a finding, with its story
            self.found.broke = error
        else:
            return after if self._spent is None else self._spent.without(after)
        self.found.story = self._told([*self._way_to(state), choice])
        raise _Stop

    def _is_known(self, state: State) -> bool:
        if state in self._way:
            return True
        if self._spent is None or state.left[DUPLICATES] == self.world.small.duplicates:
            return False
        return _with_more(state, DUPLICATES) in self._way

    def _way_to(self, state: State) -> list[Choice]:
        choices = []
        while (way := self._way[state]) is not None:
            state, choice = way
            choices.append(choice)
        return choices[::-1]

    def _told(self, choices: list[Choice]) -> list[str]:
        return [f"{number:3}. {self._in_words(*one)}" for number, one in enumerate(choices, 1)]

    def _in_words(self, kind: str, *rest: Any) -> str:
        if kind in ("deliver", "deliver twice", "drop", "die over"):
            letter = self.world.letters[rest[0]]
            said = ", ".join(in_words(message) for message in letter.messages)
            text = f"{letter.sender} -> {letter.to}: {said}"
            more = {"deliver twice": " (and once more, later)", "drop": " (lost)"}.get(kind, "")
            if kind == "die over":
                more = f" (the scheduler dies over it, with {rest[1]} of its answers sent)"
            return text + more
        if kind == "offer":
            capability, entry = self.world.small.offers[rest[0]]
            return f"a client wants {capability}, {ORIGIN}/1/{rest[0] + 1}, and enters at {entry}"
        return " ".join(str(part) for part in (kind, *rest))

    def _calm_down(self, state: State) -> None:
        """Nothing bad happens any more: all must come to an end."""
        world, first, wrong = self.world, state, None
        try:
            for _ in range(PATIENCE):
                state = world.calm(world.mend(state))
                wrong = _unfinished(world, state)
                if wrong is None:
                    return
                state = world.let_time_pass(state)
        except Violated as violated:
            wrong = violated
        self.found.violation = wrong
        self.found.story = [*self._told(self._way_to(first)), "and then nothing bad, but time"]
        raise _Stop


def _with_more(state: State, what: int) -> State:
    """The state from which one more mishap of a kind may happen."""
    left = list(state.left)
    left[what] += 1
    return state._replace(left=tuple(left))


class _Stop(Exception):  # noqa: N818 - it is no error
    """Something was found."""


def _unfinished(world: SmallWorld, state: State) -> Violated | None:
    """What is not yet as it must be when all requests are over."""
    for request, past in world.ghost(state).pasts.items():
        if len(past.outcomes) != 1:
            return Violated(2, f"{request} has {len(past.outcomes)} outcomes")
    scheduler = world.part(state, SCHEDULER)
    assert isinstance(scheduler, SchedulerPart)
    assert scheduler.machine is not None
    for request in scheduler.machine.tickets:
        return Violated(2, f"{request} is over, and the scheduler still keeps it")
    for spec in world.small.spec.replicas:
        replica = world.part(state, spec.id)
        assert isinstance(replica, ReplicaPart)
        machine, window = replica.machine, spec.concurrency + spec.prefetch
        if not machine.idle or machine.credit_outstanding != window:
            granted = machine.credit_outstanding
            return Violated(7, f"{spec.id} is free, and has granted {granted} of {window} credits")
        known = scheduler.machine.replicas[spec.id].credit
        if known != window:
            return Violated(7, f"{spec.id} has granted {window}, the scheduler knows {known}")
    return None
