"""Letters that can do nothing any more: the state without them stands for the state with them.

A letter that its receiver would now pass over (it changes neither the receiver nor the observer,
and is not answered) is left out of the state, on the guess that this stays so. Afterwards the guess
is checked against all that the receiver was ever seen to become: where the letter would do
something after all, it must not be left out, and the search is to be repeated. `docs/proofs.md`
says why nothing is missed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from small_world import SmallWorld, State
from violations import Violated

At = tuple[str, int]
"""A process, and the number of what it remembers."""


class Spent:
    """What is left out of states, and whether that was right."""

    def __init__(self, world: SmallWorld) -> None:
        assert not world.small.wakes  # with time, old news may come to matter
        self._world = world
        self._idle: dict[tuple[int, int, int], bool] = {}
        """Whether a letter does nothing to an observer's number and its receiver's."""
        self._left_out: dict[int, set[int]] = defaultdict(set)
        """Per letter, where its receiver was when it was left out."""
        self._matters: dict[int, set[int]] = defaultdict(set)
        """Per letter, where it can still do something, now or later."""

    def without(self, state: State) -> State:
        """The state without what can do nothing in it any more."""
        loose = tuple(letter for letter in state.loose if not self.is_one(state, letter))
        if len(loose) < len(state.loose):
            state = state._replace(loose=loose)
        if not state.lanes:
            return state
        lanes = []
        for lane, queue in state.lanes:
            rest = tuple(letter for letter in queue if not self.is_one(state, letter))
            if rest:
                lanes.append((lane, rest))
        return state._replace(lanes=tuple(lanes))

    def is_one(self, state: State, letter: int) -> bool:
        """Whether this letter, under way in this state, is taken to do nothing any more."""
        to = self._world.letters[letter].to
        if self._world.may_start(state, to):
            return False  # it will have forgotten what it was told
        number = self._world.number(state, to)
        key = (letter, number, state.ghost)
        idle = self._idle.get(key)
        if idle is None:
            idle = self._idle[key] = self._does_nothing(state, letter)
        if not idle or number in self._matters[letter]:
            return False
        self._left_out[letter].add(number)
        return True

    def _does_nothing(self, state: State, letter: int) -> bool:
        try:
            return self._world.passes_over(state, letter)
        except Violated:
            return False  # the search will come to it

    def reconsider(self) -> bool:
        """Whether something was left out that may matter later; it will not be left out again."""
        onward = self._world.onward()
        back: dict[At, set[At]] = defaultdict(set)
        for before, afters in onward.items():
            for after in afters:
                back[after].add(before)
        wrong = False
        for letter, numbers in self._left_out.items():
            to = self._world.letters[letter].to
            starts = [(to, number) for number in numbers]
            does = [at for at in _reached(starts, onward) if not self._world.is_idle(at, letter)]
            matters = {number for _, number in _reached(does, back)}
            wrong = wrong or not matters.isdisjoint(numbers)
            self._matters[letter] |= matters
        self._left_out.clear()
        return wrong


def _reached(starts: Iterable[At], edges: Mapping[At, set[At]]) -> set[At]:
    reached = set(starts)
    ahead = list(reached)
    while ahead:
        for after in edges.get(ahead.pop(), ()):
            if after not in reached:
                reached.add(after)
                ahead.append(after)
    return reached
