"""A small cluster of core's state machines whose every choice is explicit.

A `State` is a value: the numbers of the machines' forms, what is under way, and how many mishaps
are left. `SmallWorld.choices` names what may happen next, `after` says what then is. Machines are
deterministic, so what one does with one input is worked out once and remembered; that makes the
search over all states (`search.py`) fast. Time stands still but where a timer fires.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from ghost import Ghost
from small_parts import (
    ORIGIN,
    SCHEDULER,
    Done,
    Letter,
    OriginPart,
    Part,
    Post,
    ReplicaPart,
    SchedulerPart,
    Silent,
    Table,
    Workshop,
)
from violations import MS

from anyserve.core import effects as fx
from anyserve.core import messages as msg
from anyserve.core.spec import ClusterSpec

Choice = tuple[Any, ...]
"""What happens: its kind, and of whom or what."""
LATE_MS = 10_000
"""How much too late a timer may fire: beyond every patience of the protocol but the lifetime."""


@dataclass(frozen=True)
class Small:
    """A small system: what is there, what is wanted, and which mishaps may happen, how often.

    `offers`: capability and entry of each request; they are offered in this order, at any time.
    `crashes` counts deaths of one of `mortal`: `replica`, `worker`, `scheduler`. A replica comes
    back at any time where `return` is there too, else when all is over. The scheduler dies over a
    message, with any number of its answers sent, and restarts at any time, with its journal but
    where `amnesia` is there too.
    `in_order`: messages of one sender to one receiver do not overtake each other, except for the
    repeated ones, which come at any time; otherwise every message may overtake every other.
    """

    spec: ClusterSpec
    offers: tuple[tuple[str, str], ...]
    duplicates: int = 1
    crashes: int = 1
    mortal: frozenset[str] = frozenset({"replica"})
    drops: int = 0
    cancels: int = 0
    drains: int = 0
    wakes: int = 0
    in_order: bool = False
    at_once: bool = False
    """All are offered before anything else happens, rather than at any time."""
    max_tokens: int = 1


class State(NamedTuple):
    """Everything that can matter from here on. Parts and messages are named by numbers."""

    scheduler: int
    origin: int
    replicas: tuple[int, ...]
    ghost: int
    loose: tuple[int, ...]
    """Messages under way that may come at any time; a repeated one stands here twice."""
    lanes: tuple[tuple[int, tuple[int, ...]], ...]
    """Messages that come in order: per sender and receiver, first to last."""
    now: int
    offered: int
    left: tuple[int, ...]
    """Duplicates, crashes, drops, cancels, drains and wakes that may still happen."""


DUPLICATES, CRASHES, DROPS, CANCELS, DRAINS, WAKES = range(6)
COSTS = {"kill worker": CRASHES, "cancel": CANCELS, "drain": DRAINS, "wake": WAKES}


class SmallWorld:
    """What may happen in a small system, and what then is."""

    def __init__(self, small: Small) -> None:
        self.small = small
        self._workshop = Workshop(small.spec)
        self._names = tuple(replica.id for replica in small.spec.replicas)
        self._schedulers: Table[SchedulerPart] = Table()
        self._origins: Table[OriginPart] = Table()
        self._replicas: dict[str, Table[ReplicaPart]] = {name: Table() for name in self._names}
        self._ghosts: Table[Ghost] = Table()
        self._letters: dict[tuple[str, str, str, bytes], int] = {}
        self.letters: list[Letter] = []
        self._lanes: dict[tuple[str, str, str], int] = {}
        self._done: dict[tuple[Any, ...], Done] = {}
        self._watched: dict[tuple[Any, ...], int] = {}

    # --- looking ---------------------------------------------------------------------------------

    def part(self, state: State, name: str) -> Part:
        """A process as it is in a state; not to be changed."""
        part: Part = self._table(name).things[self.number(state, name)]
        return part

    def ghost(self, state: State) -> Ghost:
        """What the observer knows in a state; not to be changed."""
        return self._ghosts.things[state.ghost]

    @property
    def most_delegations(self) -> int:
        """How often a request was delegated at most, in any state so far."""
        pasts = (past for ghost in self._ghosts.things for past in ghost.pasts.values())
        return max((len(past.delegations) for past in pasts), default=0)

    def _table(self, name: str) -> Table[Any]:
        if name == SCHEDULER:
            return self._schedulers
        return self._origins if name == ORIGIN else self._replicas[name]

    def number(self, state: State, name: str) -> int:
        """The number of what a process remembers in a state."""
        if name == SCHEDULER:
            return state.scheduler
        return state.origin if name == ORIGIN else state.replicas[self._names.index(name)]

    def passes_over(self, state: State, letter: int) -> bool:
        """Whether a letter, if it came now, would change nothing, also for the observer."""
        to = self.letters[letter].to
        return not _runs(self.part(state, to)) or self._act(state, to, ("letter", letter)) == state

    def may_start(self, state: State, name: str) -> bool:
        """Whether a process may begin another life before all is over."""
        mortal = SCHEDULER if name == SCHEDULER else "return"
        is_down = not _runs(self.part(state, name))
        return mortal in self.small.mortal and bool(is_down or state.left[CRASHES])

    def is_idle(self, at: tuple[str, int], letter: int) -> bool:
        """Whether a process with this memory passes over a letter."""
        name, number = at
        if not _runs(self._table(name).things[number]):
            return True
        done = self._worked(name, number, MS, ("letter", letter))
        return done == Done(number, ())

    def onward(self) -> dict[tuple[str, int], set[tuple[str, int]]]:
        """What each memory of each process was seen to become at once, while time stood still.

        Without what only happens when all is over: that what was down starts again.
        """
        seen = {"letter", "offer", "step", "kill", *COSTS}
        if "worker" in self.small.mortal:
            seen.add("worker ready")
        if {SCHEDULER, "return"} & self.small.mortal:
            seen.add("start")
        onward = defaultdict(set)
        for (name, number, now, what, _), done in self._done.items():
            if now == MS and what[0] in seen:
                onward[name, number].add((name, done.part))
        return onward

    # --- the beginning ---------------------------------------------------------------------------

    def begin(self) -> State:
        """All have started and know each other; nothing is under way, nothing was offered."""
        ghost = Ghost(self.small.spec)
        ghost.stories = Silent()
        for name in self._names:
            ghost.replica_starts(name)
        blank = SchedulerPart(None, life=0)
        state = State(
            self._schedulers.number(blank),
            self._origins.number(self._workshop.new_origin()),
            tuple(
                self._replicas[name].number(ReplicaPart(self._workshop.replica_before(name), 0))
                for name in self._names
            ),
            self._ghosts.number(ghost),
            (),
            (),
            MS,
            0,
            tuple(
                getattr(self.small, name)
                for name in ("duplicates", "crashes", "drops", "cancels", "drains", "wakes")
            ),
        )
        state = self._act(state, SCHEDULER, ("start", True))
        for name in self._names:
            state = self._act(state, name, ("start",))
        state = self.calm(state)
        for name in self._names:
            state = self._act(state, name, ("worker ready",))
        return self.calm(state)

    def calm(self, state: State) -> State:
        """Let everything that is under way arrive, the oldest first, and engines step."""
        while True:
            letters = self._next_letters(state)
            if letters:
                state = self.after(state, ("deliver", min(letters)))
                continue
            stepping = [name for name in self._names if self._has_work(state, name)]
            if not stepping:
                return state
            state = self.after(state, ("step", stepping[0]))

    def mend(self, state: State) -> State:
        """Start what is down, and let all take work again."""
        if self._schedulers.things[state.scheduler].machine is None:
            state = self._act(state, SCHEDULER, ("start", "amnesia" not in self.small.mortal))
        for name in self._names:
            part = self.part(state, name)
            assert isinstance(part, ReplicaPart)
            if not part.up:
                state = self._act(state, name, ("start",))
            if not part.worker_up:
                state = self._act(state, name, ("worker ready",))
            if part.machine.state.value == "draining":
                state = self._act(state, name, ("resume",))
        return state

    def let_time_pass(self, state: State) -> State:
        """Until the next timer, which fires."""
        due = [
            (timer, name)
            for name in (SCHEDULER, ORIGIN, *self._names)
            if (timer := self.part(state, name).timer) is not None
        ]
        at, name = min(due)
        return self._act(state._replace(now=max(state.now, at)), name, ("wake",))

    # --- choices ---------------------------------------------------------------------------------

    def choices(self, state: State) -> Iterator[Choice]:
        """All that may happen next."""
        if state.offered < len(self.small.offers):
            yield ("offer", state.offered)
            if self.small.at_once:
                return
        for letter in self._next_letters(state):
            yield from self._ways_of(state, letter)
        for name in self._names:
            yield from self._fates(state, name)
        if self._schedulers.things[state.scheduler].machine is None:
            yield ("start", SCHEDULER, "amnesia" not in self.small.mortal)
        yield from self._clients_and_clocks(state)

    def _clients_and_clocks(self, state: State) -> Iterator[Choice]:
        if state.left[CANCELS]:
            machine = self._origins.things[state.origin].machine
            for request in machine.pending_ids():
                yield ("cancel", request)
        if state.left[WAKES]:
            for name in (SCHEDULER, ORIGIN, *self._names):
                part = self.part(state, name)
                if part.timer is not None and _runs(part):
                    yield ("wake", name, 0)
                    yield ("wake", name, LATE_MS)

    def _next_letters(self, state: State) -> set[int]:
        return {*state.loose, *(queue[0] for _, queue in state.lanes)}

    def _ways_of(self, state: State, number: int) -> Iterator[Choice]:
        letter = self.letters[number]
        yield ("deliver", number)
        if letter.best_effort and state.left[DROPS]:
            yield ("drop", number)
        if not _runs(self.part(state, letter.to)):
            return
        if state.left[DUPLICATES]:
            yield ("deliver twice", number)
        if letter.to == SCHEDULER and state.left[CRASHES] and SCHEDULER in self.small.mortal:
            done = self._work(state, SCHEDULER, state.now, ("letter", number))
            for sends in range(len(done.letters) + 1):
                yield ("die over", number, sends)

    def _fates(self, state: State, name: str) -> Iterator[Choice]:
        part = self.part(state, name)
        assert isinstance(part, ReplicaPart)
        mortal = self.small.mortal if state.left[CRASHES] else frozenset()
        if not part.up:
            if "return" in self.small.mortal:
                yield ("start", name)
            return
        if self._has_work(state, name):
            yield ("step", name)
        if not part.worker_up:
            yield ("worker ready", name)
        elif "worker" in mortal:
            yield ("kill worker", name)
        if "replica" in mortal:
            yield ("kill", name)
        if state.left[DRAINS] and part.machine.state.value in ("ready", "saturated"):
            yield ("drain", name)

    def _has_work(self, state: State, name: str) -> bool:
        part = self._replicas[name].things[state.replicas[self._names.index(name)]]
        return part.up and part.worker_up and bool(part.jobs or part.stopping)

    # --- what then is ----------------------------------------------------------------------------

    def after(self, state: State, choice: Choice) -> State:
        """The state after a choice.

        Raises:
            Violated: an invariant does not hold there.
        """
        kind, *rest = choice
        if kind in ("deliver", "deliver twice", "drop", "die over"):
            return self._after_letter(state, kind, *rest)
        if kind == "kill":
            return self._kill(_spend(state, CRASHES), rest[0])
        if kind == "offer":
            capability, entry = self.small.offers[state.offered]
            what = ("offer", capability, entry, self.small.max_tokens)
            return self._act(state._replace(offered=state.offered + 1), ORIGIN, what)
        if kind in COSTS:
            state = _spend(state, COSTS[kind])
        if kind == "cancel":
            return self._act(state, ORIGIN, choice)
        name, *more = rest
        if kind == "wake":
            due = self.part(state, name).timer or 0
            state = state._replace(now=max(state.now, due) + more.pop() * MS)
        return self._act(state, name, (kind, *more))

    def _after_letter(self, state: State, kind: str, number: int, sends: int = -1) -> State:
        if kind == "deliver twice":
            state = _spend(_taken(state, number), DUPLICATES)
            state = state._replace(loose=tuple(sorted((*state.loose, number))))
        else:
            state = _taken(state, number)
        letter = self.letters[number]
        if kind == "drop":
            return _spend(state, DROPS)
        if not _runs(self.part(state, letter.to)):
            return state
        if kind == "die over":
            state = _spend(state, CRASHES)
            return self._act(state, letter.to, ("letter", number), sends)
        return self._act(state, letter.to, ("letter", number))

    def _act(self, state: State, name: str, what: tuple[Any, ...], sends: int = -1) -> State:
        before = self.number(state, name)
        done = self._work(state, name, state.now, what, sends)
        key = (state.ghost, name, before, state.now, what)
        ghost = self._watched.get(key)
        if ghost is None:
            ghost = self._watched[key] = self._watch(state, name, what)
        state = self._with_part(state, name, done.part)._replace(ghost=ghost)
        return self._post(state, done.letters)

    def _with_part(self, state: State, name: str, part: int) -> State:
        if name == SCHEDULER:
            return state._replace(scheduler=part)
        if name == ORIGIN:
            return state._replace(origin=part)
        at = self._names.index(name)
        return state._replace(replicas=(*state.replicas[:at], part, *state.replicas[at + 1 :]))

    def _kill(self, state: State, name: str) -> State:
        number = self.number(state, name)
        key = (name, number, state.now, ("kill",), -1)
        done = self._done.get(key)
        if done is None:
            part = self._table(name).copy(number)
            letters: tuple[int, ...] = ()
            if isinstance(part, SchedulerPart):
                part.machine = part.timer = None
            else:
                part.up = part.worker_up = False
                part.timer = None
                part.jobs, part.stopping = [], set()
                gone = msg.Gone(source=name, incarnation=part.incarnation, connection=1)
                letters = (self._letter("broker", SCHEDULER, "gone", gone),)
            done = Done(self._table(name).number(part), letters)
            self._done[key] = done
        return self._post(self._with_part(state, name, done.part), done.letters)

    # --- letters ---------------------------------------------------------------------------------

    def _letter(self, sender: str, to: str, topic: str, *messages: Any) -> int:
        key = (sender, to, topic, msgspec.msgpack.encode(messages))
        number = self._letters.get(key)
        if number is None:
            number = self._letters[key] = len(self.letters)
            best_effort = all(isinstance(one, msg.Frame | msg.KeepAlive) for one in messages)
            lane = (sender, to, f"{topic}{best_effort}")
            place = self._lanes.setdefault(lane, len(self._lanes))
            self.letters.append(Letter(sender, to, messages, place, best_effort))
        return number

    def _post(self, state: State, letters: tuple[int, ...]) -> State:
        if not letters:
            return state
        if not self.small.in_order:
            return state._replace(loose=tuple(sorted((*state.loose, *letters))))
        lanes = dict(state.lanes)
        for number in letters:
            lane = self.letters[number].lane
            lanes[lane] = (*lanes.get(lane, ()), number)
        return state._replace(lanes=tuple(sorted(lanes.items())))

    def _addressed(self, posts: list[Post]) -> tuple[int, ...]:
        """One letter for all that goes to one topic at once, as the runtime sends it."""
        batches: dict[tuple[str, str, str], list[Any]] = {}
        for sender, send in posts:
            match send.inbox:
                case fx.Inbox.SCHEDULER | fx.Inbox.REPLICA_REGISTRATION:
                    to = [SCHEDULER]
                case fx.Inbox.SCHEDULER_STATE:
                    to = [*self._names, ORIGIN]
                case _:
                    to = [send.to]
            for one in to:
                batches.setdefault((sender, one, send.inbox.value), []).append(send.message)
        return tuple(self._letter(*key, *messages) for key, messages in batches.items())

    # --- machines and the observer, each step once -----------------------------------------------

    def _work(
        self, state: State, name: str, now: int, what: tuple[Any, ...], sends: int = -1
    ) -> Done:
        done = self._worked(name, self.number(state, name), now, what, sends)
        if what[0] == "start":
            return done._replace(letters=(*done.letters, *self._retained(state, name)))
        return done

    def _worked(
        self, name: str, number: int, now: int, what: tuple[Any, ...], sends: int = -1
    ) -> Done:
        key = (name, number, now, what, sends)
        done = self._done.get(key)
        if done is None:
            done = self._done[key] = self._work_out(name, number, now, what, sends)
        return done

    def _work_out(
        self, name: str, number: int, now: int, what: tuple[Any, ...], sends: int
    ) -> Done:
        part = self._table(name).copy(number)
        if what[0] == "wake":
            part.timer = None
        posts = list[Post]()
        for given in self._inputs(what):
            effects = self._workshop.act(name, part, now, given)
            posts += self._workshop.keep(name, part, effects)
        letters = self._addressed(posts)
        if sends >= 0:
            part.machine = part.timer = None
            letters = letters[:sends]
        return Done(self._table(name).number(part), letters)

    def _inputs(self, what: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if what[0] != "letter":
            return [what]
        return [("letter", message) for message in self.letters[what[1]].messages]

    def _retained(self, state: State, name: str) -> Iterator[int]:
        """What the broker keeps for who starts."""
        if name == SCHEDULER:
            for replica in self._names:
                part = self.part(state, replica)
                assert isinstance(part, ReplicaPart)
                if part.registration is not None:
                    topic = fx.Inbox.REPLICA_REGISTRATION.value
                    yield self._letter("broker", SCHEDULER, topic, part.registration)
            return
        announced = self._schedulers.things[state.scheduler].announced
        if announced is not None:
            yield self._letter("broker", name, fx.Inbox.SCHEDULER_STATE.value, announced)

    def _watch(self, state: State, name: str, what: tuple[Any, ...]) -> int:
        """The observer's number after it saw what one process did."""
        ghost, now = self._ghosts.copy(state.ghost), state.now
        part = self._table(name).copy(self.number(state, name))
        for given in self._inputs(what):
            message = given[1] if given[0] == "letter" else None
            if isinstance(part, SchedulerPart) and part.machine is not None:
                ghost.scheduler_gets(part.machine, message)
            elif isinstance(part, OriginPart):
                self._watch_client(ghost, part, now, given)
            effects = self._workshop.act(name, part, now, given)
            if given[0] == "start":
                self._watch_start(ghost, name, part, given)
            if isinstance(part, OriginPart):
                ghost.origin_did(now, message, effects)
            elif isinstance(part, ReplicaPart):
                ghost.replica_did(name, part.incarnation, now, message, effects)
            elif given[0] != "start":
                assert part.machine is not None
                ghost.scheduler_did(part.machine, now, message, effects)
            self._workshop.keep(name, part, effects)
        return self._ghosts.number(ghost)

    def _watch_client(
        self, ghost: Ghost, part: OriginPart, now: int, given: tuple[Any, ...]
    ) -> None:
        if given[0] == "offer":
            name = f"{ORIGIN}/1/{len(ghost.pasts) + 1}"
            request = self._workshop.request(name, given[1], given[3], now)
            ghost.offered(request, part.machine.epoch)
        elif given[0] == "cancel":
            ghost.pasts[given[1]].cancelled = True

    def _watch_start(self, ghost: Ghost, name: str, part: Part, given: tuple[Any, ...]) -> None:
        if isinstance(part, SchedulerPart):
            assert part.machine is not None
            ghost.scheduler_starts(with_journal=given[1], epoch=part.machine.epoch)
        else:
            ghost.replica_starts(name)


def _runs(part: Part) -> bool:
    if isinstance(part, SchedulerPart):
        return part.machine is not None
    return not isinstance(part, ReplicaPart) or part.up


def _spend(state: State, what: int) -> State:
    left = list(state.left)
    left[what] -= 1
    return state._replace(left=tuple(left))


def _taken(state: State, number: int) -> State:
    """The state without one copy of a letter that was under way."""
    if number in state.loose:
        loose = list(state.loose)
        loose.remove(number)
        return state._replace(loose=tuple(loose))
    lanes = []
    for lane, queue in state.lanes:
        rest = queue[1:] if queue[0] == number else queue
        if rest:
            lanes.append((lane, rest))
    return state._replace(lanes=tuple(lanes))
