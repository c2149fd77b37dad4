"""A whole cluster of core's state machines on an adversarial network, in virtual time.

The world draws every delay, loss and repetition from one seeded source, keeps ghost state that the
machines cannot see, and checks the invariants of the architecture after every step.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.capability import Ladder
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
from anyserve.core.messages import ReplicaState
from anyserve.core.origin import Origin
from anyserve.core.policies import shipped_policy
from anyserve.core.replica import Replica
from anyserve.core.scheduler import Scheduler
from anyserve.core.spec import ClusterSpec

MS = 1_000_000
BEST_EFFORT = (msg.Frame, msg.KeepAlive)


class Violated(AssertionError):  # noqa: N818 - reads as a sentence: invariant 4 is violated
    """An invariant does not hold; the text begins with its number and name."""


@dataclass
class Chaos:
    """How bad the network is: shares of messages, and delays in milliseconds."""

    drop: float = 0.0
    duplicate: float = 0.0
    max_delay_ms: int = 5
    in_order: bool = False


@dataclass
class Job:
    """An attempt in a replica's engine."""

    request: msg.Request
    attempt: int
    made: int = 0
    cancelled: bool = False


@dataclass
class Node:
    """A replica process: its machine, its worker, and the crash state."""

    machine: Replica
    incarnation: int
    connection: int = 1
    up: bool = True
    worker_up: bool = False
    jobs: dict[tuple[str, int], Job] = field(default_factory=dict)
    stepping: bool = False
    timer: int = 0
    cut: bool = False


class World:
    """Scheduler, replicas and one origin; `offer`, break things, `run`, `settle`."""

    def __init__(self, spec: ClusterSpec, seed: int, chaos: Chaos | None = None) -> None:
        self.spec = spec
        self.rng = random.Random(seed)
        self.chaos = chaos or Chaos()
        self.ladder = Ladder(spec.ladder.upgrades)
        self.now = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._n = 0
        self.journal: list[fx.JournalRecord] = []
        self.state_message: msg.SchedulerState | None = None
        self.registrations: dict[str, msg.Registration] = {}
        self.events: list[tuple[str, ev.AnyEvent]] = []
        self.sent: list[tuple[str, fx.Send]] = []
        # Ghost state.
        self.outcomes: dict[str, list[fx.Outcome]] = defaultdict(list)
        self.offered: dict[str, msg.Request] = {}
        self.delegations: dict[str, int] = defaultdict(int)
        self._counted: set[tuple[str, int]] = set()
        self.seen: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        self.prefixes: dict[tuple[str, str, int, int], list[int]] = {}
        self.rungs: dict[str, str] = {}
        self.starts: dict[tuple[str, str, int, int], int] = defaultdict(int)
        self.scheduler_up = False
        self.scheduler: Scheduler = self._new_scheduler(1)
        self._scheduler_life = 0
        self.origin = Origin("p", spec, incarnation=1)
        self._origin_timer = 0
        self.nodes: dict[str, Node] = {}
        self.start_scheduler()
        for replica in spec.replicas:
            self.start_replica(replica.id)

    # --- building blocks -------------------------------------------------------------------------

    def _new_scheduler(self, incarnation: int) -> Scheduler:
        rules = self.spec.scheduler
        policy = shipped_policy(rules.policy, self.rng, rules.policy_options)
        return Scheduler(self.spec, policy, self.rng, incarnation=incarnation)

    def at(self, delay_ns: int, action: Callable[[], None]) -> None:
        self._n += 1
        heapq.heappush(self._queue, (self.now + delay_ns, self._n, action))

    def _delay(self) -> int:
        return self.rng.randrange(self.chaos.max_delay_ms * MS + 1)

    def _transmit(self, best_effort: bool, deliver: Callable[[], None]) -> None:
        if best_effort and self.rng.random() < self.chaos.drop:
            return
        copies = 2 if self.rng.random() < self.chaos.duplicate else 1
        for _ in range(copies):
            delay = MS if self.chaos.in_order else self._delay()
            self.at(delay, deliver)

    # --- carrying out effects --------------------------------------------------------------------

    def _carry_out(self, source: str, effects: list[fx.Effect]) -> None:  # noqa: C901 - one case per effect
        for effect in effects:
            match effect:
                case fx.Persist(record=record):
                    self.journal.append(record)
                case fx.Send():
                    self._send(source, effect)
                case fx.Emit(event=event):
                    self._note(source, event)
                case fx.SetTimer(at_ns=at_ns):
                    self._set_timer(source, at_ns)
                case fx.StartWork():
                    self._start_work(source, effect)
                case fx.CancelWork(id=request_id, attempt=attempt):
                    job = self.nodes[source].jobs.get((request_id, attempt))
                    if job is not None:
                        job.cancelled = True
                case fx.Deliver(id=request_id, frame=frame):
                    self._deliver(request_id, frame)
                case fx.Finish(id=request_id, outcome=outcome):
                    self.outcomes[request_id].append(outcome)
                    if len(self.outcomes[request_id]) > 1:
                        raise Violated(f"2 one outcome: {request_id} {self.outcomes[request_id]}")
                case _:
                    raise AssertionError(effect)

    def _send(self, source: str, send: fx.Send) -> None:
        self.sent.append((source, send))
        best_effort = isinstance(send.message, BEST_EFFORT)
        if source in self.nodes:
            allowed = {fx.Inbox.SCHEDULER, fx.Inbox.ORIGIN, fx.Inbox.REPLICA_REGISTRATION}
            if send.inbox not in allowed:
                raise Violated(f"4 no shortcut: {source} sent {send}")
            if self.nodes[source].cut:
                return
        match send.inbox:
            case fx.Inbox.SCHEDULER:
                self._transmit(best_effort, lambda: self._to_scheduler(send.message))
            case fx.Inbox.SCHEDULER_STATE:
                assert isinstance(send.message, msg.SchedulerState)
                self.state_message = send.message
                for name in [*self.nodes, "p"]:
                    self._transmit(False, lambda name=name: self._to_node(name, send.message))
            case fx.Inbox.REPLICA | fx.Inbox.REPLICA_ENTRY:
                self._transmit(best_effort, lambda: self._to_node(send.to, send.message))
            case fx.Inbox.REPLICA_REGISTRATION:
                assert isinstance(send.message, msg.Registration)
                self.registrations[send.to] = send.message
                self._transmit(False, lambda: self._to_scheduler(send.message))
            case fx.Inbox.ORIGIN:
                self._transmit(best_effort, lambda: self._to_node("p", send.message))

    def _to_scheduler(self, message: Any) -> None:
        if not self.scheduler_up:
            return
        effects = self.scheduler.handle(self.now, message)
        self._count_delegations(message, effects)
        self._carry_out("scheduler", effects)
        self.check_scheduler()

    def _count_delegations(self, message: Any, effects: list[fx.Effect]) -> None:
        """Ghost: a hand-back for delegation that is carried on instead of rejected."""
        if not isinstance(message, msg.Delegate):
            return
        for effect in effects:
            if isinstance(effect, fx.Emit) and isinstance(effect.event, ev.RequestDelegated):
                key = message.id, message.attempt
                if key not in self._counted:
                    self._counted.add(key)
                    self.delegations[message.id] += 1
                if self.delegations[message.id] > self.spec.delegation.limit:
                    raise Violated(f"1 delegation bound: {message.id} {self.delegations}")

    def _to_node(self, name: str, message: Any) -> None:
        if name == "p":
            self._carry_out("p", self.origin.handle(self.now, message))
            return
        node = self.nodes.get(name)
        if node is None or not node.up or node.cut:
            return
        self._feed(name, message)

    def _feed(self, name: str, message: Any) -> None:
        node = self.nodes[name]
        self._carry_out(name, node.machine.handle(self.now, message))
        self.check_replica(name)

    def _set_timer(self, source: str, at_ns: int) -> None:
        delay = max(0, at_ns - self.now)
        if source == "scheduler":
            life = self._scheduler_life

            def wake_scheduler() -> None:
                if self.scheduler_up and life == self._scheduler_life:
                    self._to_scheduler(Wake())

            self.at(delay, wake_scheduler)
        elif source == "p":
            self._origin_timer += 1
            mine = self._origin_timer

            def wake_origin() -> None:
                if mine == self._origin_timer:
                    self._carry_out("p", self.origin.handle(self.now, Wake()))

            self.at(delay, wake_origin)
        else:
            node = self.nodes[source]
            node.timer += 1
            mine = node.timer

            def wake_replica() -> None:
                if self.nodes[source] is node and node.up and mine == node.timer:
                    self._feed(source, Wake())

            self.at(delay, wake_replica)

    # --- engines ---------------------------------------------------------------------------------

    def _start_work(self, name: str, work: fx.StartWork) -> None:
        node = self.nodes[name]
        request = work.request
        offer = node.machine.offer_for(request)
        if offer is None or node.machine.state not in (
            ReplicaState.READY,
            ReplicaState.SATURATED,
            ReplicaState.DRAINING,
        ):
            raise Violated(f"3 right place: {name} starts {request}")
        before = self.rungs.get(request.id, request.asked)
        if not self.ladder.is_at_or_above(request.capability, before):
            raise Violated(f"5 monotone upgrade: {before} then {request.capability}")
        self.rungs[request.id] = request.capability
        key = (name, request.id, work.attempt, node.incarnation)
        self.starts[key] += 1
        if self.starts[key] > 1:
            raise Violated(f"7 bounds: {key} started twice")
        self.prefixes[key] = list(request.resume_ids)
        node.jobs[request.id, work.attempt] = Job(request, work.attempt)
        self._ensure_steps(name)

    def _ensure_steps(self, name: str) -> None:
        node = self.nodes[name]
        if not node.stepping:
            node.stepping = True
            self.at(self.rng.randrange(1, 20) * MS, lambda: self._step(name, node))

    def _step(self, name: str, node: Node) -> None:
        node.stepping = False
        if self.nodes.get(name) is not node or not node.up or not node.worker_up:
            return
        deltas = []
        for job in list(node.jobs.values()):
            total = len(job.request.resume_ids) + job.made
            done = job.cancelled or total + 1 >= job.request.max_tokens
            tokens = [] if job.cancelled else [hash((name, job.attempt, total)) % 50_000]
            job.made += len(tokens)
            finish = ("cancelled" if job.cancelled else "length") if done else None
            deltas.append(
                Delta(
                    id=job.request.id, attempt=job.attempt, tokens=tokens, done=done, finish=finish
                )
            )
            if done:
                del node.jobs[job.request.id, job.attempt]
        self._feed(name, Stepped(deltas=deltas, kv_usage=0.5))
        if node.jobs:
            self._ensure_steps(name)

    def _deliver(self, request_id: str, frame: msg.Frame) -> None:
        tokens = self.seen[request_id][frame.choice]
        if frame.start != len(tokens):
            raise Violated(f"6 whole stream: {request_id} has {len(tokens)}, got {frame.start}")
        key = (frame.replica, request_id, frame.attempt, frame.incarnation)
        prefix = self.prefixes[key]
        if tokens[: len(prefix)] != prefix or len(prefix) > len(tokens):
            raise Violated(f"6 whole stream: {request_id} attempt {frame.attempt} spliced")
        own = tokens[len(prefix) :]
        expected = [
            hash((frame.replica, frame.attempt, len(prefix) + index)) % 50_000
            for index in range(len(own))
        ]
        if own != expected:
            raise Violated(f"6 whole stream: {request_id} mixes attempts")
        tokens.extend(frame.tokens)

    # --- what tests do ---------------------------------------------------------------------------

    def offer(
        self,
        capability: str,
        entry: str = "scheduler",
        *,
        prompt_tokens: int = 4,
        max_tokens: int = 3,
        priority: int = 0,
        deadline_ms: int | None = None,
        attributes: dict[str, str] | None = None,
    ) -> str:
        request_id = self.origin.next_id()
        deadline = None
        if deadline_ms is not None:
            deadline = msg.Deadline("", self.now + deadline_ms * MS, deadline_ms)
        request = msg.Request(
            id=request_id,
            asked=capability,
            capability=capability,
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
            offered_ns=self.now,
            priority=priority,
            deadline=deadline,
            attributes=attributes or {},
            lifetime_ms=self.spec.request_lifetime_ms,
        )
        self.offered[request_id] = request
        self._carry_out(
            "p",
            self.origin.handle(
                self.now, Offered(request=request, entry=entry, intended_ns=self.now)
            ),
        )
        return request_id

    def cancel(self, request_id: str) -> None:
        self._carry_out("p", self.origin.handle(self.now, Cancelled(id=request_id)))

    def start_scheduler(self, *, with_journal: bool = True) -> None:
        self._scheduler_life += 1
        self.scheduler = self._new_scheduler(self._scheduler_life)
        if with_journal:
            self.scheduler.replay(self.journal)
        else:
            self.journal = []
        self.scheduler_up = True
        seen = self.state_message.epoch if self.state_message else 0
        self._carry_out("scheduler", self.scheduler.start(self.now, seen_epoch=seen))
        for registration in self.registrations.values():
            self._transmit(False, lambda r=registration: self._to_scheduler(r))

    def stop_scheduler(self) -> None:
        self.scheduler_up = False

    def start_replica(self, replica_id: str) -> None:
        spec = next(item for item in self.spec.replicas if item.id == replica_id)
        before = self.nodes.get(replica_id)
        incarnation = before.incarnation + 1 if before else 1
        machine = Replica(spec, self.spec, incarnation=incarnation)
        node = Node(machine, incarnation)
        self.nodes[replica_id] = node
        self._carry_out(replica_id, machine.start(self.now))
        self._feed(replica_id, BusUp(connection=1))
        if self.state_message is not None:
            state = self.state_message
            self._transmit(False, lambda: self._to_node(replica_id, state))
        self.at(self.rng.randrange(1, 50) * MS, lambda: self._worker_ready(replica_id, node))

    def _worker_ready(self, name: str, node: Node) -> None:
        if self.nodes[name] is node and node.up:
            node.worker_up = True
            self._feed(name, WorkerReady())

    def crash_replica(self, replica_id: str) -> None:
        node = self.nodes[replica_id]
        if not node.up:
            return
        node.up = False
        gone = msg.Gone(source=replica_id, incarnation=node.incarnation, connection=node.connection)
        self._transmit(False, lambda: self._to_scheduler(gone))

    def crash_worker(self, replica_id: str) -> None:
        node = self.nodes[replica_id]
        if not node.up or not node.worker_up:
            return
        node.worker_up = False
        node.jobs.clear()
        self._feed(replica_id, WorkerDied(reason="test"))
        self.at(self.rng.randrange(1, 50) * MS, lambda: self._worker_ready(replica_id, node))

    def cut(self, replica_id: str) -> None:
        """The replica's connection breaks, the process lives."""
        node = self.nodes[replica_id]
        if node.up and not node.cut:
            node.cut = True
            gone = msg.Gone(
                source=replica_id, incarnation=node.incarnation, connection=node.connection
            )
            self._transmit(False, lambda: self._to_scheduler(gone))

    def mend(self, replica_id: str) -> None:
        node = self.nodes[replica_id]
        if node.up and node.cut:
            node.cut = False
            node.connection += 1
            self._feed(replica_id, BusUp(connection=node.connection))
            if self.state_message is not None:
                self._feed(replica_id, self.state_message)

    def drain(self, replica_id: str) -> None:
        if self.nodes[replica_id].up:
            self._feed(replica_id, Drain())

    def resume(self, replica_id: str) -> None:
        if self.nodes[replica_id].up:
            self._feed(replica_id, msg.Control(action="resume"))

    def run(self, ms: int) -> None:
        """Let `ms` milliseconds pass."""
        end = self.now + ms * MS
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = end

    def settle(self, ms: int = 120_000) -> None:
        """Mend everything, let all requests end, and check what must then be true."""
        self.chaos = Chaos(max_delay_ms=2)
        if not self.scheduler_up:
            self.start_scheduler()
        for name, node in list(self.nodes.items()):
            if not node.up:
                self.start_replica(name)
            elif node.cut:
                self.mend(name)
            self.resume(name)
        end = self.now + ms * MS
        while self.origin.open_requests and self.now < end:
            self.run(500)
        self.run(10_000)
        self.check_settled()

    # --- invariants ------------------------------------------------------------------------------

    def check_scheduler(self) -> None:
        scheduler = self.scheduler
        waiting = [t for t in scheduler.tickets.values() if t.state.value == "queued"]
        for ticket in waiting:
            deadline = ticket.request.deadline
            if deadline is not None and deadline.at_ns <= self.now:
                continue
            for view in scheduler.replicas.values():
                if scheduler.eligible(ticket, view):
                    raise Violated(f"8 work conservation: {ticket.id} waits, {view.id} is free")

    def check_replica(self, name: str) -> None:
        machine = self.nodes[name].machine
        spec = next(item for item in self.spec.replicas if item.id == name)
        if (
            machine.running > spec.concurrency
            or machine.held > spec.prefetch
            or machine.waiting > spec.entry_queue
        ):
            raise Violated(f"7 bounds: {name} {machine.running} {machine.held} {machine.waiting}")

    def _note(self, source: str, event: ev.AnyEvent) -> None:
        self.events.append((source, event))
        if isinstance(event, ev.RequestQueued) and event.submission == 1:
            limits = {item.name: item.queue_limit for item in self.spec.capabilities}
            limit = limits.get(event.capability, math.inf)
            # What comes back is never refused, and may fill a queue beyond its limit.
            reentered = any(
                isinstance(e, (ev.RequestDelegated, ev.RequestReentered))
                or (isinstance(e, ev.RequestQueued) and e.submission > 1)
                for _, e in self.events
            )
            if event.depth > limit and not reentered:
                raise Violated(f"7 bounds: queue {event.capability} {event.depth} > {limit}")

    def check_settled(self) -> None:  # noqa: C901 - one check after the other
        for request_id in self.offered:
            if len(self.outcomes[request_id]) != 1:
                raise Violated(f"2 one outcome: {request_id} has {self.outcomes[request_id]}")
        for request_id, (outcome,) in self.outcomes.items():
            if outcome.kind is fx.OutcomeKind.COMPLETED:
                tokens = self.seen[request_id][0]
                if len(tokens) != self.offered[request_id].max_tokens:
                    raise Violated(f"6 whole stream: {request_id} completed with {len(tokens)}")
        if self.scheduler.tickets:
            raise Violated(f"2 one outcome: left at the scheduler {list(self.scheduler.tickets)}")
        for name, node in self.nodes.items():
            machine, view = node.machine, self.scheduler.replicas[name]
            spec = next(item for item in self.spec.replicas if item.id == name)
            if not machine.idle:
                raise Violated(f"7 bounds: {name} is not idle")
            if machine.credit_outstanding != spec.concurrency + spec.prefetch:
                raise Violated(f"7 bounds: {name} leaks credit {machine.credit_outstanding}")
            if view.credit != machine.credit_outstanding:
                raise Violated(f"7 bounds: {name} credit {view.credit} in the scheduler's view")
