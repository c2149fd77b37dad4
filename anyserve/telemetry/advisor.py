"""What an experienced operator would say of a snapshot: stable codes, and the knob to turn.

Each rule is a pure function of one snapshot. A rule that needs time to pass reads it from the
snapshot's own history, so it says the same in a replay as it said live.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from anyserve.core.messages import DelegateReason
from anyserve.telemetry.views import Level, LoadPoint, QueueView, ReplicaView, Snapshot

_NS_PER_S = 1e9
_LOST_S = 5
_FULL_S = 20
_KV_FULL = 0.9
_MOSTLY = 0.5
_ENOUGH = 20
_REJECTED_SHARE = 0.01
_LOST_OFTEN = 3
_IDLE_S = 30
_SERVING = frozenset({"ready", "saturated"})
_NOT_HERE = DelegateReason.NOT_REGISTERED.value


@dataclass(frozen=True, slots=True)
class Advice:
    """`subject`: the replica or capability it is about. `knob`: what to turn, and where."""

    code: str
    level: Level
    subject: str
    text: str
    knob: str


@dataclass(frozen=True, slots=True)
class Rule:
    """`title` is what docs say of it; `find` yields what the snapshot gives cause for."""

    code: str
    title: str
    find: Callable[[Snapshot], Iterator[tuple[Level, str, str, str]]]


def advise(snapshot: Snapshot) -> tuple[Advice, ...]:
    """Everything that the rules have to say, errors first, then by code."""
    found = [
        Advice(rule.code, level, subject, text, knob)
        for rule in RULES
        for level, subject, text, knob in rule.find(snapshot)
    ]
    return tuple(sorted(found, key=lambda one: (one.level is not Level.ERROR, one.code)))


_Found = Iterator[tuple[Level, str, str, str]]


def _unserved(snapshot: Snapshot) -> _Found:
    for queue in snapshot.queues:
        if queue.queued and not _servers(snapshot, queue.capability, _SERVING):
            yield (
                Level.ERROR,
                queue.capability,
                f"no ready replica offers {queue.capability}, and {queue.queued} wait for it",
                "add it to a replica's capabilities, or resume one that offers it",
            )


def _lost(snapshot: Snapshot) -> _Found:
    for replica in snapshot.replicas:
        gone_s = (snapshot.now_ns - replica.changed_ns) / _NS_PER_S
        if replica.state == "lost" and gone_s >= _LOST_S:
            yield (
                Level.ERROR,
                replica.id,
                f"{replica.id} is lost for {gone_s:.0f} s",
                f"its log says why; others must offer {_names(replica)} meanwhile",
            )


def _full(snapshot: Snapshot) -> _Found:
    for replica in snapshot.replicas:
        full_s = _seconds_full(replica)
        waits = sum(queue.queued for queue in snapshot.queues if queue.capability in replica.offers)
        if full_s >= _FULL_S and (waits or replica.waiting):
            yield (
                Level.WARN,
                replica.id,
                (
                    f"{replica.id} has all {replica.concurrency} slots busy for {full_s:.0f} s, "
                    f"{waits + (replica.waiting or 0)} wait"
                ),
                f"raise its concurrency, or let another replica offer {_names(replica)}",
            )


def _overloaded(snapshot: Snapshot) -> _Found:
    for queue in snapshot.queues:
        slots = _slots(snapshot, queue)
        if slots and queue.queued > slots:
            yield (
                Level.WARN,
                queue.capability,
                f"{queue.queued} wait for {queue.capability}, more than its {slots} slots",
                "add a replica that offers it, or lower the rate of its streams",
            )


def _entering_wrong(snapshot: Snapshot) -> _Found:
    reasons = [entry for entry in snapshot.ledger if entry.kind == "delegate"]
    wrong = sum(entry.reason == _NOT_HERE for entry in reasons)
    offered = snapshot.counters.offered
    delegated = snapshot.counters.delegated_requests
    if offered >= _ENOUGH and delegated > _MOSTLY * offered and wrong > _MOSTLY * len(reasons):
        yield (
            Level.WARN,
            "entry",
            f"{delegated} of {offered} requests entered where nobody serves them",
            "let their streams enter at the scheduler, or where it is offered",
        )


def _kv(snapshot: Snapshot) -> _Found:
    for replica in snapshot.replicas:
        if replica.kv_usage is not None and replica.kv_usage >= _KV_FULL:
            yield (
                Level.WARN,
                replica.id,
                (
                    f"the KV cache of {replica.id} is {replica.kv_usage:.0%} full: "
                    "requests will be preempted"
                ),
                "raise engine.kv_cache_gib, or lower its concurrency",
            )


def _rejecting(snapshot: Snapshot) -> _Found:
    counts = snapshot.counters
    if counts.rejected > max(1, _REJECTED_SHARE * counts.offered):
        code = max(snapshot.by_code, key=lambda one: snapshot.by_code[one], default="")
        yield (
            Level.WARN,
            "rejections",
            f"{counts.rejected} of {counts.offered} requests were rejected, most as {code}",
            f"anyserve explain {code}",
        )


def _engine_waits(snapshot: Snapshot) -> _Found:
    for replica in snapshot.replicas:
        times = replica.times
        if times is None or times.attempts < _ENOUGH:
            continue
        if times.engine_wait_ms > times.prefill_ms + times.decode_ms:
            yield (
                Level.WARN,
                replica.id,
                (
                    f"requests wait {times.engine_wait_ms:.0f} ms inside the engine of "
                    f"{replica.id}, longer than they run"
                ),
                "lower its concurrency to what the engine can batch, or raise max_num_seqs",
            )


def _policy(snapshot: Snapshot) -> _Found:
    failures = snapshot.counters.policy_failures
    if failures:
        yield (
            Level.ERROR,
            "policy",
            f"the policy {snapshot.policy} failed {failures} times; least-loaded decided",
            "the events name the error; try it with: anyserve scenario validate",
        )


def _missing(snapshot: Snapshot) -> _Found:
    if snapshot.events_missing:
        yield (
            Level.WARN,
            "events",
            f"{snapshot.events_missing} events never came: the picture is not whole",
            "the recorder's log is: anyserve runs show",
        )


def _drained(snapshot: Snapshot) -> _Found:
    for replica in snapshot.replicas:
        since_s = (snapshot.now_ns - replica.changed_ns) / _NS_PER_S
        idle = not replica.running and not replica.waiting and not replica.held
        waits = [
            queue.capability
            for queue in snapshot.queues
            if queue.queued and queue.capability in replica.offers
        ]
        if replica.state == "draining" and idle and since_s >= _IDLE_S and waits:
            yield (
                Level.WARN,
                replica.id,
                f"{replica.id} is drained and idle, and {', '.join(waits)} waits",
                "resume it (d)",
            )


def _dying(snapshot: Snapshot) -> _Found:
    for replica in snapshot.replicas:
        if replica.lost >= _LOST_OFTEN:
            yield (
                Level.WARN,
                replica.id,
                f"{replica.id} has lost {replica.lost} requests",
                "its worker's log says why it dies; less memory per engine often helps",
            )


RULES: tuple[Rule, ...] = (
    Rule("AS-ADV-01", "requests wait for a capability that no ready replica offers", _unserved),
    Rule("AS-ADV-02", "a replica is lost and does not come back", _lost),
    Rule("AS-ADV-03", "a replica has all slots busy for long while requests wait", _full),
    Rule("AS-ADV-04", "more requests wait for a capability than it has slots", _overloaded),
    Rule("AS-ADV-05", "most requests enter where nobody serves them", _entering_wrong),
    Rule("AS-ADV-06", "a KV cache is nearly full", _kv),
    Rule("AS-ADV-07", "more than one in a hundred requests is rejected", _rejecting),
    Rule("AS-ADV-08", "requests wait longer inside an engine than they run", _engine_waits),
    Rule("AS-ADV-09", "the routing policy failed", _policy),
    Rule("AS-ADV-10", "events are missing", _missing),
    Rule("AS-ADV-11", "a drained replica idles while its capability is waited for", _drained),
    Rule("AS-ADV-12", "a replica keeps losing requests", _dying),
)


def _servers(snapshot: Snapshot, capability: str, states: frozenset[str]) -> list[ReplicaView]:
    return [
        replica
        for replica in snapshot.replicas
        if replica.state in states and capability in replica.offers
    ]


def _slots(snapshot: Snapshot, queue: QueueView) -> int:
    return sum(one.concurrency for one in _servers(snapshot, queue.capability, _SERVING))


def _seconds_full(replica: ReplicaView) -> float:
    """For how long, up to now, every report said that all slots were busy."""
    since: LoadPoint | None = None
    for point in reversed(replica.history):
        if not replica.concurrency or point.running < replica.concurrency:
            break
        since = point
    if since is None:
        return 0.0
    return (replica.history[-1].at_ns - since.at_ns) / _NS_PER_S


def _names(replica: ReplicaView) -> str:
    return ", ".join(sorted(replica.offers)) or "what it offers"
