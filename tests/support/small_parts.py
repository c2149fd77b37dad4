"""The parts of a small world: what each process remembers, and what it does with one input."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Generic, NamedTuple, TypeVar

from canonical import form
from ghost import check_replica
from known import token
from violations import Stories, Violated

from anyserve.core import effects as fx
from anyserve.core import messages as msg
from anyserve.core.inputs import (
    BusUp,
    Cancelled,
    Delta,
    Drain,
    Offered,
    Stepped,
    Wake,
    WorkerDied,
    WorkerReady,
)
from anyserve.core.origin import Origin
from anyserve.core.policies import LeastLoaded
from anyserve.core.replica import Replica
from anyserve.core.scheduler import Scheduler
from anyserve.core.spec import ClusterSpec, Spec

T = TypeVar("T")
SCHEDULER, ORIGIN = "scheduler", "p"


@dataclass
class SchedulerPart:
    """The scheduler's process: its machine while it lives, and what outlives it."""

    machine: Scheduler | None
    life: int = 1
    journal: dict[str, fx.JournalRecord] = field(default_factory=dict)
    """What a replay of the whole journal comes to: epochs as `first` and `last`, counters by id."""
    announced: msg.SchedulerState | None = None
    timer: int | None = None


@dataclass
class OriginPart:
    """The origin's process, which does not die here."""

    machine: Origin
    timer: int | None = None


@dataclass
class ReplicaPart:
    """A replica's process and its worker. `jobs`: request, attempt and tokens made and wanted."""

    machine: Replica
    incarnation: int = 1
    up: bool = True
    worker_up: bool = False
    jobs: list[tuple[str, int, int, int]] = field(default_factory=list)
    stopping: set[tuple[str, int]] = field(default_factory=set)
    """Attempts that the worker was told to stop and has not stopped yet."""
    registration: msg.Registration | None = None
    timer: int | None = None


class Letter(NamedTuple):
    """What goes to one topic at once. `lane` numbers sender, receiver, topic and QoS."""

    sender: str
    to: str
    messages: tuple[Any, ...]
    lane: int
    best_effort: bool


class Done(NamedTuple):
    """What a part became, and what it sent."""

    part: int
    letters: tuple[int, ...]


class _Shared:
    """Frozen messages and specifications, which copies of machines may have in common."""

    def __init__(self) -> None:
        self._kept: dict[int, object] = {}

    def reduce(self, thing: object) -> tuple[Any, ...]:
        """How it is pickled: as a place in this memory."""
        self._kept[id(thing)] = thing
        return self.get, (id(thing),)

    def get(self, place: int) -> object:
        """What is kept there."""
        return self._kept[place]

    def __reduce__(self) -> Any:
        return _shared, ()


_SHARED = _Shared()


def _shared() -> _Shared:
    return _SHARED


def _frozen_types(kind: type) -> Iterator[type]:
    below: type
    for below in kind.__subclasses__():
        yield below
        yield from _frozen_types(below)


_REDUCERS = {
    kind: _SHARED.reduce
    for base in (msg.Message, msg.Record, Spec, fx.JournalRecord)
    for kind in (base, *_frozen_types(base))
}


def _pickled(thing: object) -> bytes:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = _REDUCERS
    pickler.dump(thing)
    return buffer.getvalue()


class Table(Generic[T]):
    """Things by their forms: equal ones have one number, and one of them stands for all."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._by_pickle: dict[bytes, int] = {}
        """The same by digests of pickles: quicker, but equal things may be pickled differently."""
        self._pickled: list[bytes] = []
        self.things: list[T] = []

    def number(self, thing: T) -> int:
        """The number of this thing, which must not change any more."""
        pickled = _pickled(thing)
        digest = blake2b(pickled, digest_size=16).digest()
        number = self._by_pickle.get(digest)
        if number is None:
            number = self._by_pickle[digest] = self._by_form(thing, pickled)
        return number

    def _by_form(self, thing: T, pickled: bytes) -> int:
        key = form(thing)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.things)
            self.things.append(thing)
            self._pickled.append(pickled)
        return number

    def copy(self, number: int) -> T:
        """One to change."""
        thing: T = pickle.loads(self._pickled[number])
        return thing


class Silent(Stories):
    """The search knows the way to every state: nothing needs to be noted on the way."""

    def note(self, now: int, who: str, whom: str, what: object) -> None:
        """Nothing."""

    def say(self, now: int, request: str, who: str, what: str) -> None:
        """Nothing."""

    def violated(self, invariant: int, what: str, request: str | None = None) -> Violated:
        """The exception to raise."""
        return Violated(invariant, what if request is None else f"{request} {what}")

    def __reduce__(self) -> Any:
        return Silent, ()


class NoChance:
    """A random source for policies that ask for none."""

    def random(self) -> float:
        """Not here."""
        raise AssertionError("the search must not draw")

    def randrange(self, stop: int, /) -> int:
        """Not here."""
        raise AssertionError("the search must not draw")


Part = SchedulerPart | OriginPart | ReplicaPart
Input = tuple[Any, ...]
"""What a part gets: its kind, and what belongs to it."""
Effects = list[fx.Effect]


class Workshop:
    """Lets a part do one thing. Parts are changed in place; nothing here remembers anything."""

    def __init__(self, spec: ClusterSpec) -> None:
        self._spec = spec
        self._specs = {replica.id: replica for replica in spec.replicas}

    # --- beginnings ------------------------------------------------------------------------------

    def new_scheduler(self, life: int) -> Scheduler:
        """A machine that has not started."""
        chance = NoChance()
        return Scheduler(self._spec, LeastLoaded(chance, {}), chance, incarnation=life)

    def new_origin(self) -> OriginPart:
        """The origin."""
        return OriginPart(Origin(ORIGIN, self._spec, incarnation=1))

    def replica_before(self, name: str) -> Replica:
        """The machine of a replica before its first life."""
        return Replica(self._specs[name], self._spec, incarnation=0)

    def new_replica(self, name: str, incarnation: int) -> ReplicaPart:
        """A replica whose process runs and has not started."""
        machine = Replica(self._specs[name], self._spec, incarnation=incarnation)
        return ReplicaPart(machine, incarnation)

    def act(self, name: str, part: Part, now: int, what: Input) -> Effects:
        """Give a part `what`.

        Raises:
            Violated: a replica no longer keeps to its bounds.
        """
        if isinstance(part, SchedulerPart):
            return self.scheduler(part, now, what)
        if isinstance(part, OriginPart):
            return self.origin(part, now, what)
        effects = self.replica(name, part, now, what)
        check_replica(name, part.machine, self._specs[name])
        return effects

    # --- acting ----------------------------------------------------------------------------------

    def scheduler(self, part: SchedulerPart, now: int, what: Input) -> Effects:
        """The scheduler's process gets `what`."""
        kind, *rest = what
        if kind == "start":
            part.life += 1
            part.machine = self.new_scheduler(part.life)
            (with_journal,) = rest
            if with_journal:
                part.machine.replay(_whole_journal(part.journal))
            else:
                part.journal = {}
            seen = part.announced.epoch if part.announced else 0
            return part.machine.start(now, seen_epoch=seen)
        assert part.machine is not None
        return part.machine.handle(now, rest[0] if kind == "letter" else Wake())

    def origin(self, part: OriginPart, now: int, what: Input) -> Effects:
        """The origin gets `what`."""
        kind, *rest = what
        machine = part.machine
        if kind == "offer":
            capability, entry, max_tokens = rest
            request = self.request(machine.next_id(), capability, max_tokens, now)
            return machine.handle(now, Offered(request=request, entry=entry, intended_ns=now))
        if kind == "cancel":
            return machine.handle(now, Cancelled(id=rest[0]))
        return machine.handle(now, rest[0] if kind == "letter" else Wake())

    def request(self, name: str, capability: str, max_tokens: int, now: int) -> msg.Request:
        """What a client asks for."""
        return msg.Request(
            id=name,
            asked=capability,
            capability=capability,
            prompt_tokens=4,
            max_tokens=max_tokens,
            offered_ns=now,
            lifetime_ms=self._spec.request_lifetime_ms,
        )

    def replica(self, name: str, part: ReplicaPart, now: int, what: Input) -> Effects:
        """A replica's process or its worker gets `what`, or something happens to it."""
        kind, *rest = what
        machine = part.machine
        if kind == "start":
            part.__dict__.update(vars(self.new_replica(name, part.incarnation + 1)))
            effects = part.machine.start(now)
            return [*effects, *part.machine.handle(now, BusUp(connection=1))]
        if kind == "step":
            return machine.handle(now, self._step(name, part))
        if kind == "worker ready":
            part.worker_up = True
        if kind == "kill worker":
            part.worker_up = False
            part.jobs.clear()
        told: dict[str, Any] = {
            "worker ready": WorkerReady(),
            "kill worker": WorkerDied(reason="test"),
            "drain": Drain(),
            "resume": msg.Control(action="resume"),
            "wake": Wake(),
        }
        return machine.handle(now, rest[0] if kind == "letter" else told[kind])

    def _step(self, name: str, part: ReplicaPart) -> Stepped:
        deltas, going_on = [], []
        for request, attempt, made, wanted in part.jobs:
            done = made + 1 >= wanted
            tokens = [token(name, part.incarnation, attempt, made)]
            finish = "length" if done else None
            deltas.append(
                Delta(id=request, attempt=attempt, tokens=tokens, done=done, finish=finish)
            )
            if not done:
                going_on.append((request, attempt, made + 1, wanted))
        for request, attempt in sorted(part.stopping):
            deltas.append(Delta(id=request, attempt=attempt, done=True, finish="cancelled"))
        part.jobs, part.stopping = going_on, set()
        return Stepped(deltas=deltas)

    # --- carrying out ----------------------------------------------------------------------------

    def keep(self, name: str, part: Part, effects: Effects) -> list[Post]:
        """Do what of the effects stays in the process; the rest is to be sent."""
        posts: list[Post] = []
        for effect in effects:
            if isinstance(effect, fx.Send):
                posts.append((name, effect))
                if isinstance(part, ReplicaPart) and isinstance(effect.message, msg.Registration):
                    part.registration = effect.message
                if isinstance(part, SchedulerPart) and isinstance(
                    effect.message, msg.SchedulerState
                ):
                    part.announced = effect.message
            elif isinstance(effect, fx.SetTimer):
                part.timer = effect.at_ns
            elif isinstance(effect, fx.Persist):
                assert isinstance(part, SchedulerPart)
                _fold(part.journal, effect.record)
            elif isinstance(effect, fx.StartWork):
                assert isinstance(part, ReplicaPart)
                self._start_work(name, part, effect)
            elif isinstance(effect, fx.CancelWork):
                assert isinstance(part, ReplicaPart)
                _cancel_work(part, effect)
        return posts

    def _start_work(self, name: str, part: ReplicaPart, work: fx.StartWork) -> None:
        request = work.request
        if not part.worker_up:
            raise Violated(3, f"{request.id} starts at {name}, which has no worker")
        resumed = len(request.resume_ids)
        part.jobs.append((request.id, work.attempt, resumed, request.max_tokens))
        if len(part.jobs) > self._specs[name].concurrency:
            text = f"{request.id} is number {len(part.jobs)} in the engine of {name}"
            raise Violated(7, text)


Post = tuple[str, fx.Send]
"""Who says it, and what."""


def _cancel_work(part: ReplicaPart, cancel: fx.CancelWork) -> None:
    kept = [job for job in part.jobs if job[:2] != (cancel.id, cancel.attempt)]
    if len(kept) < len(part.jobs):
        part.jobs = kept
        part.stopping.add((cancel.id, cancel.attempt))


def _fold(journal: dict[str, fx.JournalRecord], record: fx.JournalRecord) -> None:
    if record.kind == "epoch":
        journal.setdefault("first", record)
        journal["last"] = record
    elif record.kind == "counters":
        journal[record.id] = record
    else:
        journal.pop(record.id, None)


def _whole_journal(journal: dict[str, fx.JournalRecord]) -> list[fx.JournalRecord]:
    epochs = [journal[name] for name in ("first", "last") if name in journal]
    return epochs + [record for record in journal.values() if record.kind == "counters"]
