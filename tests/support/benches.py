"""One bench per state machine of core.

A bench holds one real machine and the present time, plays the other end of the wire, and returns
what every input made the machine do as `Effects`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec
from builders import Effects, cluster, done, entry_of, frame, offer, replica_spec, request

from anyserve.core import effects as fx
from anyserve.core import messages as msg
from anyserve.core.inputs import BusUp, Cancelled, Delta, Offered, Stepped, Wake, WorkerReady
from anyserve.core.machine import Explains, explain_all
from anyserve.core.messages import ReplicaState
from anyserve.core.order import MS
from anyserve.core.origin import Origin
from anyserve.core.policies import RoutingPolicy, shipped_policy
from anyserve.core.replica import Replica
from anyserve.core.scheduler import Scheduler
from anyserve.core.spec import (
    ClusterSpec,
    ReplicaSpec,
)


class Peer:
    """The other end of one replica's wire: keeps the counters that a real replica would."""

    def __init__(self, bench: SchedulerBench, registration: msg.Registration, window: int) -> None:
        self._bench = bench
        self.registration = registration
        self.id = registration.replica
        self.granted = window
        self.taken = 0
        self.assigned = 0
        self.sequence = 0

    @property
    def incarnation(self) -> int:
        """Of the life that registered last."""
        return self.registration.incarnation

    def register(self, **changes: Any) -> Effects:
        """Register anew; the revision goes up unless `changes` name another."""
        changes = {"revision": self.registration.revision + 1} | changes
        self.registration = msgspec.structs.replace(self.registration, **changes)
        return self._bench.tell(self.registration)

    def credit(self, *, epoch: int | None = None, **load: Any) -> Effects:
        """Report the counters as they are."""
        return self._bench.tell(self.counters(epoch=epoch, **load))

    def counters(self, *, epoch: int | None = None, **load: Any) -> msg.Credit:
        """What it reports of them next."""
        self.sequence += 1
        return msg.Credit(
            replica=self.id,
            incarnation=self.incarnation,
            epoch=self._bench.scheduler.epoch if epoch is None else epoch,
            sequence=self.sequence,
            granted_total=self.granted,
            taken_total=self.taken,
            assigned_seen=self.assigned,
            ordinals_below=self.assigned,
            load=msg.Load(**load),
        )

    def see(self, count: int = 1) -> None:
        """`count` more assignments arrived here."""
        self.assigned += count

    def started(self, assign: msg.Assign) -> Effects:
        """The assigned attempt begins."""
        return self._bench.tell(
            msg.Started(
                id=assign.request.id,
                attempt=assign.attempt,
                replica=self.id,
                incarnation=self.incarnation,
            )
        )

    def ended(
        self,
        given: msg.Assign | msg.Entry,
        status: msg.AttemptStatus = msg.AttemptStatus.COMPLETED,
        *,
        started: bool = True,
        credit: msg.Credit | None = None,
    ) -> Effects:
        """The attempt is over; `credit` comes with it."""
        return self._bench.tell(
            msg.Ended(
                id=given.request.id,
                attempt=given.attempt,
                replica=self.id,
                incarnation=self.incarnation,
                status=status,
                started=started,
                credit=credit,
            )
        )

    def freed(self) -> Effects:
        """One slot is free again."""
        self.granted += 1
        return self.credit()

    def back(self, given: msg.Assign | msg.Entry) -> dict[str, Any]:
        """The common part of a hand-back of what was given."""
        return {
            "id": given.request.id,
            "attempt": given.attempt,
            "submission": given.submission,
            "replica": self.id,
            "incarnation": self.incarnation,
            "epoch": self._bench.scheduler.epoch,
            "request": given.request,
        }

    def delegate(
        self,
        given: msg.Assign | msg.Entry,
        reason: msg.DelegateReason = msg.DelegateReason.NOT_REGISTERED,
        min_rung: str | None = None,
    ) -> Effects:
        """Hand it back for delegation."""
        return self._bench.tell(self.delegation(given, reason, min_rung))

    def delegation(
        self,
        given: msg.Assign | msg.Entry,
        reason: msg.DelegateReason = msg.DelegateReason.NOT_REGISTERED,
        min_rung: str | None = None,
    ) -> msg.Delegate:
        """The message of `delegate`."""
        rung = min_rung or given.request.capability
        return msg.Delegate(reason=reason, min_rung=rung, **self.back(given))

    def refuse(self, given: msg.Assign | msg.Entry) -> Effects:
        """Refuse for want of a slot; the credit it used is granted anew."""
        return self._bench.tell(self.refusal(given))

    def refusal(self, given: msg.Assign | msg.Entry) -> msg.Refuse:
        """The message of `refuse`."""
        return msg.Refuse(reason=msg.RefuseReason.STALE_CREDIT, **self.back(given))

    def give_back(self, given: msg.Assign | msg.Entry) -> Effects:
        """Return it, draining."""
        return self._bench.tell(msg.Return(**self.back(given)))

    def holding(self, *held: msg.Held) -> Effects:
        """Say all that is held here."""
        return self._bench.tell(
            msg.Holding(
                replica=self.id,
                incarnation=self.incarnation,
                epoch=self._bench.scheduler.epoch,
                held=list(held),
            )
        )

    def admitted(self, given: msg.Entry) -> Effects:
        """What entered here stays here."""
        return self._bench.tell(
            msg.Admitted(
                id=given.request.id,
                attempt=given.attempt,
                submission=given.submission,
                replica=self.id,
                incarnation=self.incarnation,
            )
        )

    def gone(self, connection: int | None = None) -> Effects:
        """The broker publishes the last will of this life."""
        return self._bench.tell(
            msg.Gone(
                source=self.id,
                incarnation=self.incarnation,
                connection=self.registration.connection if connection is None else connection,
            )
        )


class SchedulerBench:
    """A scheduler that has been up for a minute: its patience for the first replicas is over.

    The clock is at 60 s; `fresh=True` leaves it at the moment of the start.
    """

    def __init__(
        self,
        spec: ClusterSpec | None = None,
        *,
        policy: RoutingPolicy | None = None,
        journal: Iterable[fx.JournalRecord] | None = None,
        seen_epoch: int = 0,
        fresh: bool = False,
        at_ms: int = 0,
    ) -> None:
        self.spec = spec or cluster()
        rng = random.Random(0)
        rules = self.spec.scheduler
        policy = policy or shipped_policy(rules.policy, rng, rules.policy_options)
        self.scheduler = Scheduler(self.spec, policy, rng, incarnation=1)
        if journal is not None:
            self.scheduler.replay(journal)
        self.now = at_ms * MS
        self.started = Effects(self.scheduler.start(self.now, seen_epoch=seen_epoch))
        self.journal: list[fx.JournalRecord] = [*(journal or ()), *self.started.persisted]
        if not fresh:
            self.now += 60_000 * MS

    def tell(self, message: Any) -> Effects:
        """One input, now."""
        effects = Effects(self.scheduler.handle(self.now, message))
        self.journal.extend(effects.persisted)
        return effects

    def wake(self, after_ms: int = 0) -> Effects:
        """The timer fires `after_ms` from now."""
        self.now += after_ms * MS
        return self.tell(Wake())

    def later(self, ms: int) -> None:
        """Time passes."""
        self.now += ms * MS

    def peer(
        self,
        replica_id: str,
        *offers: msg.Offer,
        concurrency: int = 1,
        state: ReplicaState = ReplicaState.READY,
        credit: bool = True,
    ) -> Peer:
        """A replica registers, and reports its credit where it is ready."""
        registration = msg.Registration(
            replica=replica_id,
            incarnation=1,
            connection=1,
            revision=1,
            state=state,
            offers=list(offers) or [offer()],
            concurrency=concurrency,
        )
        peer = Peer(self, registration, concurrency)
        self.tell(registration)
        if credit:
            peer.credit()
        return peer

    def request(self, number: int = 1, capability: str = "decode", **fields: Any) -> msg.Request:
        """A request offered now."""
        return request(number, capability, **({"offered_ns": self.now} | fields))

    def submit(self, number: int = 1, capability: str = "decode", **fields: Any) -> Effects:
        """A new request enters at the scheduler."""
        submit = msg.Submit(
            request=self.request(number, capability, **fields), epoch=self.scheduler.epoch
        )
        return self.tell(submit)

    def assigned(self, number: int = 1, capability: str = "decode", **fields: Any) -> msg.Assign:
        """A new request that is bound at once; its assignment."""
        return self.submit(number, capability, **fields).one(msg.Assign)

    def settle(self, *numbers: int, below: int = 0, all_open: bool = False) -> Effects:
        """The origin has decided these."""
        return self.tell(
            msg.Settled(
                origin="p",
                incarnation=1,
                ids=[f"p/1/{number}" for number in numbers],
                settled_below=below,
                all_open=all_open,
            )
        )

    def state_of(self, number: int) -> str:
        """The state of request `number`'s ticket."""
        return self.scheduler.tickets[f"p/1/{number}"].state.value


class ReplicaBench:
    """A replica whose worker is ready and who knows scheduler life 1, at 1 s on its clock.

    `ready=False` leaves its worker loading, `epoch=0` leaves the scheduler unknown.
    """

    def __init__(
        self,
        spec: ReplicaSpec | None = None,
        shared: ClusterSpec | None = None,
        *,
        ready: bool = True,
        epoch: int = 1,
        incarnation: int = 1,
    ) -> None:
        self.spec = spec or replica_spec()
        self.cluster = shared or cluster()
        self.replica = Replica(self.spec, self.cluster, incarnation=incarnation)
        self.now = 1_000 * MS
        self.incarnation = incarnation
        self.epoch = epoch
        self.ordinals = 0
        self.started = Effects(self.replica.start(self.now))
        self.tell(BusUp(connection=1))
        if epoch:
            self.learn(epoch)
        if ready:
            self.tell(WorkerReady())

    def tell(self, message: Any) -> Effects:
        """One input, now."""
        return Effects(self.replica.handle(self.now, message))

    def later(self, ms: float) -> None:
        """Time passes."""
        self.now += round(ms * MS)

    def wake(self, after_ms: float = 0) -> Effects:
        """The timer fires `after_ms` from now."""
        self.later(after_ms)
        return self.tell(Wake())

    def learn(self, epoch: int) -> Effects:
        """The scheduler says who it is."""
        self.epoch = epoch
        self.ordinals = 0
        state = msg.SchedulerState(
            epoch=epoch, incarnation=1, ladder={}, capabilities=[], delegation_limit=1
        )
        return self.tell(state)

    def request(self, number: int = 1, capability: str = "decode", **fields: Any) -> msg.Request:
        """A request offered now."""
        return request(number, capability, **({"offered_ns": self.now} | fields))

    def assignment(
        self, number: int = 1, capability: str = "decode", *, attempt: int = 1001, **fields: Any
    ) -> msg.Assign:
        """The next assignment of the scheduler to this life."""
        self.ordinals += 1
        return msg.Assign(
            request=self.request(number, capability, **fields),
            attempt=attempt,
            submission=1,
            incarnation=self.incarnation,
            epoch=self.epoch,
            ordinal=self.ordinals,
        )

    def assign(self, number: int = 1, capability: str = "decode", **fields: Any) -> Effects:
        """The scheduler assigns a request."""
        return self.tell(self.assignment(number, capability, **fields))

    def enter(
        self, number: int = 1, capability: str = "decode", *, delegations: int = 0, **fields: Any
    ) -> Effects:
        """A request enters here."""
        return self.tell(
            entry_of(self.request(number, capability, **fields), delegations=delegations)
        )

    def step(self, *deltas: Delta, kv_usage: float | None = None) -> Effects:
        """The engine ends a step."""
        return self.tell(Stepped(deltas=list(deltas), kv_usage=kv_usage))

    def finish(self, number: int = 1, attempt: int = 1001, n_tokens: int = 3) -> Effects:
        """The engine makes all tokens of an attempt in one step."""
        return self.step(done(number, attempt, n_tokens))


class OriginBench:
    """An origin `p`, and the frames that a replica would send it."""

    def __init__(
        self,
        shared: ClusterSpec | None = None,
        *,
        epoch: int = 1,
        explains: Explains = explain_all,
    ) -> None:
        self.origin = Origin("p", shared or cluster(), explains=explains)
        self.now = 1_000 * MS
        if epoch:
            self.learn(epoch)

    def tell(self, message: Any) -> Effects:
        """One input, now."""
        return Effects(self.origin.handle(self.now, message))

    def later(self, ms: float) -> None:
        """Time passes."""
        self.now += round(ms * MS)

    def wake(self, after_ms: float = 0) -> Effects:
        """The timer fires `after_ms` from now."""
        self.later(after_ms)
        return self.tell(Wake())

    def learn(self, epoch: int) -> Effects:
        """The scheduler says who it is."""
        state = msg.SchedulerState(
            epoch=epoch, incarnation=1, ladder={}, capabilities=[], delegation_limit=1
        )
        return self.tell(state)

    def offer(
        self,
        capability: str = "decode",
        entry: str = "scheduler",
        *,
        resumable: bool = True,
        choices: int = 1,
        **fields: Any,
    ) -> Effects:
        """A client wants the next request."""
        values = {"id": self.origin.next_id(), "offered_ns": self.now} | fields
        wanted = request(0, capability, **values)
        return self.tell(
            Offered(
                request=wanted,
                entry=entry,
                intended_ns=self.now,
                resumable=resumable,
                choices=choices,
            )
        )

    def cancel(self, number: int = 1) -> Effects:
        """Its client went away."""
        return self.tell(Cancelled(id=f"p/1/{number}"))

    def frame(self, sequence: int, *ids: int, **fields: Any) -> Effects:
        """A frame of request 1 arrives."""
        return self.tell(frame(sequence, *ids, **fields))

    def lost(self, attempt: int = 1001, submission: int = 1, **fields: Any) -> Effects:
        """Attempt `attempt` of request 1 is gone."""
        values: dict[str, Any] = {"code": msg.Code.REPLICA_LOST, "started": True} | fields
        return self.tell(
            msg.AttemptLost(id="p/1/1", attempt=attempt, submission=submission, **values)
        )
