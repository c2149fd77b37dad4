"""A whole cluster of core's state machines on an adversarial network, in virtual time.

The world draws every delay, loss and repetition from one seeded source and carries out what the
machines ask for; `ghost.py` knows what the machines cannot see, and checks the invariants of the
architecture at every step. `settle` ends a story and checks what must be true once all is calm.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ghost import Ghost, check_replica
from known import fits, token
from violations import MS, Violated

from anyserve.core import effects as fx
from anyserve.core import messages as msg
from anyserve.core.events import Event
from anyserve.core.inputs import (
    BusDown,
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
from anyserve.core.spec import ClusterSpec, ReplicaSpec

__all__ = ["MS", "Chaos", "Violated", "World"]

BEST_EFFORT = (msg.Frame, msg.KeepAlive)
PATIENCE_MS = 20_000
"""In calm weather nobody waits for longer while a replica that could serve stands idle."""


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
        self.ghost = Ghost(spec)
        self.now = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._n = 0
        self._bus = 0
        self.journal: list[fx.JournalRecord] = []
        self.state_message: msg.SchedulerState | None = None
        self.registrations: dict[str, msg.Registration] = {}
        self.scheduler_up = False
        self.scheduler_dies_after: int | None = None
        """Sends that the scheduler still gets out before its process dies amid its work."""
        self.scheduler: Scheduler = self._new_scheduler(1)
        self._scheduler_life = 0
        self.origin = Origin("p", spec, incarnation=1)
        self._origin_timer = 0
        self._origin_connection = 1
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

    def _transmit(self, deliver: Callable[[], None], *, best_effort: bool = False) -> None:
        if best_effort and self.rng.random() < self.chaos.drop:
            return
        copies = 2 if self.rng.random() < self.chaos.duplicate else 1
        bus = self._bus

        def arrive() -> None:
            if bus == self._bus:
                deliver()

        for _ in range(copies):
            delay = (
                MS if self.chaos.in_order else self.rng.randrange(self.chaos.max_delay_ms * MS + 1)
            )
            self.at(delay, arrive)

    def _spec_of(self, name: str) -> ReplicaSpec:
        return next(item for item in self.spec.replicas if item.id == name)

    # --- carrying out effects --------------------------------------------------------------------

    def _carry_out(self, source: str, effects: list[fx.Effect]) -> None:  # noqa: C901 - one case per effect
        for effect in effects:
            match effect:
                case fx.Persist(record=record):
                    self.journal.append(record)
                case fx.Send():
                    self._send(source, effect)
                    if source == "scheduler" and self._dies_here():
                        return
                case Event():
                    pass
                case fx.SetTimer(at_ns=at_ns):
                    self._set_timer(source, at_ns)
                case fx.StartWork():
                    self._start_work(source, effect)
                case fx.CancelWork(id=request_id, attempt=attempt):
                    job = self.nodes[source].jobs.get((request_id, attempt))
                    if job is not None:
                        job.cancelled = True
                case fx.Deliver() | fx.Finish():
                    self.ghost.stories.note(self.now, source, "client", effect)
                case _:
                    raise AssertionError(effect)

    def _dies_here(self) -> bool:
        if self.scheduler_dies_after is None:
            return False
        self.scheduler_dies_after -= 1
        if self.scheduler_dies_after < 0:
            self.scheduler_up = False
        return not self.scheduler_up

    def _send(self, source: str, send: fx.Send) -> None:
        message = send.message
        self.ghost.stories.note(self.now, source, send.to or "scheduler", message)
        if source in self.nodes and self.nodes[source].cut:
            return
        best_effort = isinstance(message, BEST_EFFORT)
        match send.inbox:
            case fx.Inbox.SCHEDULER:
                self._transmit(lambda: self._to_scheduler(message))
            case fx.Inbox.SCHEDULER_STATE:
                assert isinstance(message, msg.SchedulerState)
                self.state_message = message
                for name in [*self.nodes, "p"]:
                    self._transmit(partial(self._to_node, name, message))
            case fx.Inbox.REPLICA_REGISTRATION:
                assert isinstance(message, msg.Registration)
                self.registrations[send.to] = message
                self._transmit(lambda: self._to_scheduler(message))
            case fx.Inbox.REPLICA | fx.Inbox.REPLICA_ENTRY:
                self._transmit(lambda: self._to_node(send.to, message), best_effort=best_effort)
            case fx.Inbox.ORIGIN:
                self._transmit(lambda: self._to_node("p", message), best_effort=best_effort)

    def _to_scheduler(self, message: Any) -> None:
        if not self.scheduler_up:
            return
        self.ghost.scheduler_gets(self.scheduler, message)
        effects = self.scheduler.handle(self.now, message)
        self.ghost.scheduler_did(self.scheduler, self.now, message, effects)
        self._carry_out("scheduler", effects)

    def _to_origin(self, message: Any) -> None:
        effects = self.origin.handle(self.now, message)
        self.ghost.origin_did(self.now, message, effects)
        self._carry_out("p", effects)

    def _to_node(self, name: str, message: Any) -> None:
        if name == "p":
            self._to_origin(message)
            return
        node = self.nodes.get(name)
        if node is not None and node.up and not node.cut:
            self._feed(name, message)

    def _feed(self, name: str, message: Any) -> None:
        node = self.nodes[name]
        effects = node.machine.handle(self.now, message)
        self.ghost.replica_did(name, node.incarnation, self.now, message, effects)
        self._carry_out(name, effects)
        check_replica(name, node.machine, self._spec_of(name))

    def _set_timer(self, source: str, at_ns: int) -> None:
        delay = max(0, at_ns - self.now)
        if source == "scheduler":
            life = self._scheduler_life

            def wake_scheduler() -> None:
                if life == self._scheduler_life:
                    self._to_scheduler(Wake())

            self.at(delay, wake_scheduler)
        elif source == "p":
            self._origin_timer += 1
            mine = self._origin_timer

            def wake_origin() -> None:
                if mine == self._origin_timer:
                    self._to_origin(Wake())

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
        self.ghost.stories.say(self.now, request.id, name, f"starts attempt {work.attempt}")
        if not node.worker_up:
            text = f"starts at {name}, which has no worker"
            raise self.ghost.stories.violated(3, text, request.id)
        node.jobs[request.id, work.attempt] = Job(request, work.attempt)
        if len(node.jobs) > self._spec_of(name).concurrency:
            text = f"is number {len(node.jobs)} in the engine of {name}"
            raise self.ghost.stories.violated(7, text, request.id)
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
            tokens = [token(name, node.incarnation, job.attempt, total)]
            tokens = [] if job.cancelled else tokens
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
        deadline = None
        if deadline_ms is not None:
            deadline = msg.Deadline("", self.now + deadline_ms * MS, deadline_ms)
        request = msg.Request(
            id=self.origin.next_id(),
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
        self.ghost.offered(request, self.origin.epoch)
        self._to_origin(Offered(request=request, entry=entry, intended_ns=self.now))
        return request.id

    def cancel(self, request_id: str) -> None:
        self.ghost.pasts[request_id].cancelled = True
        self._to_origin(Cancelled(id=request_id))

    def start_scheduler(self, *, with_journal: bool = True) -> None:
        self._scheduler_life += 1
        self.scheduler = self._new_scheduler(self._scheduler_life)
        if with_journal:
            self.scheduler.replay(self.journal)
        else:
            self.journal = []
        self.scheduler_up = True
        self.scheduler_dies_after = None
        seen = self.state_message.epoch if self.state_message else 0
        effects = self.scheduler.start(self.now, seen_epoch=seen)
        self.ghost.scheduler_starts(with_journal=with_journal, epoch=self.scheduler.epoch)
        self._carry_out("scheduler", effects)
        for registration in self.registrations.values():
            self._transmit(partial(self._to_scheduler, registration))

    def stop_scheduler(self, *, after_sends: int | None = None) -> None:
        """The scheduler's process dies: now, or amid what it next sends."""
        if after_sends is None:
            self.scheduler_up = False
        else:
            self.scheduler_dies_after = after_sends

    def start_replica(self, replica_id: str) -> None:
        before = self.nodes.get(replica_id)
        incarnation = before.incarnation + 1 if before else 1
        machine = Replica(self._spec_of(replica_id), self.spec, incarnation=incarnation)
        node = Node(machine, incarnation)
        self.nodes[replica_id] = node
        self.ghost.replica_starts(replica_id)
        effects = machine.start(self.now)
        self.ghost.replica_did(replica_id, incarnation, self.now, None, effects)
        self._carry_out(replica_id, effects)
        self._feed(replica_id, BusUp(connection=1))
        self._retained(replica_id)
        self.at(self.rng.randrange(1, 50) * MS, lambda: self._worker_ready(replica_id, node))

    def _retained(self, name: str) -> None:
        """Who connects gets what the scheduler last said of itself."""
        if self.state_message is not None:
            state = self.state_message
            self._transmit(lambda: self._to_node(name, state))

    def _worker_ready(self, name: str, node: Node) -> None:
        if self.nodes[name] is node and node.up:
            node.worker_up = True
            self._feed(name, WorkerReady())

    def crash_replica(self, replica_id: str) -> None:
        node = self.nodes[replica_id]
        if node.up:
            node.up = False
            self._last_will(replica_id, node)

    def _last_will(self, name: str, node: Node) -> None:
        gone = msg.Gone(source=name, incarnation=node.incarnation, connection=node.connection)
        self._transmit(lambda: self._to_scheduler(gone))

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
            self._last_will(replica_id, node)

    def mend(self, replica_id: str) -> None:
        node = self.nodes[replica_id]
        if node.up and node.cut:
            node.cut = False
            node.connection += 1
            self._feed(replica_id, BusUp(connection=node.connection))
            self._retained(replica_id)

    def restart_broker(self, *, down_ms: int = 50) -> None:
        """All that is under way is lost; everybody's connection breaks and comes back."""
        self._bus += 1
        self._to_origin(BusDown())
        if self.scheduler_up:
            self._to_scheduler(BusDown())
        for name, node in self.nodes.items():
            if node.up and not node.cut:
                node.cut = True
                self._feed(name, BusDown())
        self.at(down_ms * MS, self._reconnect)

    def _reconnect(self) -> None:
        self._origin_connection += 1
        self._to_origin(BusUp(connection=self._origin_connection))
        self._retained("p")
        if self.scheduler_up:
            self._to_scheduler(BusUp(connection=2))
            for registration in self.registrations.values():
                self._transmit(partial(self._to_scheduler, registration))
        for name in self.nodes:
            self.mend(name)

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
        self.ghost.check_expiry(self.now)

    def settle(self, ms: int = 120_000) -> None:
        """Mend everything, let all requests end, and check what must then be true."""
        self.chaos = Chaos(max_delay_ms=2)
        self.run(1_000)
        if not self.scheduler_up:
            self.start_scheduler()
        self.scheduler_dies_after = None
        for name, node in list(self.nodes.items()):
            if not node.up:
                self.start_replica(name)
            elif node.cut:
                self.mend(name)
            self.resume(name)
        end, idle_since = self.now + ms * MS, dict[str, int]()
        while self.origin.open_requests and self.now < end:
            self.run(500)
            self._check_idle(idle_since)
        self.run(10_000)
        self.check_settled()

    # --- invariants ------------------------------------------------------------------------------

    def _check_idle(self, since: dict[str, int]) -> None:
        """Nobody waits for long while somebody who could serve has nothing to do."""
        for request_id in self.origin.pending_ids():
            idle = self._who_could_serve(request_id)
            if not idle:
                since.pop(request_id, None)
            elif self.now - since.setdefault(request_id, self.now) > PATIENCE_MS * MS:
                text = f"waited {PATIENCE_MS} ms, while {idle} had nothing to do"
                raise self.ghost.stories.violated(8, text, request_id)

    def _who_could_serve(self, request_id: str) -> str | None:
        past = self.ghost.pasts[request_id]
        request = msg.Request(
            id=request_id,
            asked=past.request.asked,
            capability=past.rung,
            prompt_tokens=past.request.prompt_tokens,
            max_tokens=past.request.max_tokens,
            attributes=past.request.attributes,
            offered_ns=0,
        )
        if any(request_id == job for node in self.nodes.values() for job, _ in node.jobs):
            return None
        for name, node in self.nodes.items():
            registration = self.registrations[name]
            if (
                not node.jobs
                and registration.state is ReplicaState.READY
                and name not in past.refused_entry
                and fits(registration.offers, request)
            ):
                return name
        return None

    def check_settled(self) -> None:
        stories = self.ghost.stories
        for request_id, past in self.ghost.pasts.items():
            if len(past.outcomes) != 1:
                raise stories.violated(2, f"has {len(past.outcomes)} outcomes", request_id)
        for request_id in self.scheduler.tickets:
            raise stories.violated(2, "is over, and the scheduler still keeps it", request_id)
        for name, node in self.nodes.items():
            machine, view, spec = node.machine, self.scheduler.replicas[name], self._spec_of(name)
            if not machine.idle or node.jobs:
                raise Violated(7, f"all requests are over, and {name} is not idle")
            if view.state is not ReplicaState.READY:
                raise Violated(8, f"{name} is ready, and the scheduler has it {view.state.value}")
            window = spec.concurrency + spec.prefetch
            if machine.credit_outstanding != window:
                text = f"{name} has granted {machine.credit_outstanding} of its {window} credits"
                raise Violated(7, f"{text}, and nothing runs")
            if view.credit != machine.credit_outstanding:
                text = f"{name} has granted {machine.credit_outstanding} credits"
                raise Violated(7, f"{text}, the scheduler knows {view.credit}")
