"""One routing decision: filter, ask the policy, check its answer, explain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from anyserve.core.counts import RoutedCount
from anyserve.core.effects import Effect
from anyserve.core.events import Candidate, PolicyFailed, RequestRouted
from anyserve.core.machine import Explains, explain_all
from anyserve.core.policies import SHIPPED, Choice, LeastLoaded, RoutingPolicy
from anyserve.core.randomness import Rng
from anyserve.core.scheduler.pool import Pool, RequestView
from anyserve.core.scheduler.ranking import Filter
from anyserve.core.scheduler.registry import Registry, view_serves
from anyserve.core.scheduler.state import ReplicaView, Ticket

EXPLAINED: Final = 8
"""Candidates that a decision's explanation names."""
COUNTED: Final = 64
"""With up to so many replicas the explanation looks at each, else at those that the policy saw."""


class Router:
    """Chooses among the replicas that are eligible for a ticket."""

    def __init__(
        self,
        registry: Registry,
        policy: RoutingPolicy,
        policy_name: str,
        reserves: Mapping[str, float],
        rng: Rng,
        *,
        explains: Explains = explain_all,
    ) -> None:
        self._registry = registry
        self._policy = policy
        self._name = policy_name
        self._reserves = reserves
        self._rng = rng
        self._explains = explains
        self._trusted = type(policy) in SHIPPED.values()
        """A policy of ours names candidates only, and needs no checking."""
        self._fallback = LeastLoaded(rng, {})

    def eligible(self, ticket: Ticket, view: ReplicaView) -> bool:
        """Whether this replica could take this ticket now."""
        credit = view.credit
        if credit <= 0 or not view.takes_work:
            return False
        if ticket.overload and credit <= self._kept_back(ticket, view):
            return False
        if ticket.excluded and view.id in ticket.excluded:
            return False
        if ticket.refused_by and view.id in ticket.refused_by:
            return False
        request = ticket.request
        return view_serves(view, request, request.capability)

    def route(self, ticket: Ticket, attempt: int, out: list[Effect]) -> ReplicaView | None:
        """The replica that gets the ticket, what explains or counts it put `out`; None: nobody
        can."""
        pool = self._registry.pool(ticket.request.capability)
        eligible = _Eligible(self, ticket)
        if not pool.has_any(eligible):
            return None
        view = RequestView(pool, ticket.request, eligible, self._rng)
        choice, policy = self._choose(ticket, view, pool, out)
        chosen = pool.get(choice.replica)
        if chosen is None:
            return None
        if ticket.request.affinity is not None:
            pool.remember(ticket.request.affinity, chosen.id)
        out.append(self._explain(ticket, attempt, choice, policy, view))
        return chosen

    def _choose(
        self, ticket: Ticket, view: RequestView, pool: Pool, out: list[Effect]
    ) -> tuple[Choice, str]:
        if self._trusted:
            return self._policy.choose(ticket.request, view), self._name
        try:
            choice = self._policy.choose(ticket.request, view)
        except Exception as raised:  # noqa: BLE001 - users' code; the event says what it did
            error = f"{type(raised).__name__}: {raised} ({_where(raised)})"
        else:
            error = _fault(choice)
            chosen = None if error else pool.get(choice.replica)
            if chosen is not None and self.eligible(ticket, chosen):
                return choice, self._name
            error = error or f"named {choice.replica!r}, which is no candidate"
        out.append(PolicyFailed(policy=self._name, id=ticket.id, error=error))
        return self._fallback.choose(ticket.request, view), "least-loaded"

    def _kept_back(self, ticket: Ticket, view: ReplicaView) -> int:
        kept = math.ceil(self._reserves.get(ticket.request.capability, 0.0) * view.concurrency)
        # An idle replica keeps nothing back: with one slot, all would wait for ever.
        return min(kept, view.concurrency - 1)

    def _explain(
        self,
        ticket: Ticket,
        attempt: int,
        choice: Choice,
        policy: str,
        view: RequestView,
    ) -> Effect:
        if not self._explains(ticket.id):
            return RoutedCount(
                ticket.id, attempt, choice.replica, ticket.request.capability, ticket.received_ns
            )
        pool = self._registry.pool(ticket.request.capability)
        shown, n_eligible = list(dict.fromkeys(view.examined)), len(pool)
        if n_eligible <= COUNTED:
            shown = [replica for replica in pool if self.eligible(ticket, replica)]
            n_eligible = len(shown)
        shown.sort(key=lambda replica: (replica.id != choice.replica, replica.fill, replica.id))
        return RequestRouted(
            id=ticket.id,
            attempt=attempt,
            replica=choice.replica,
            capability=ticket.request.capability,
            policy=policy,
            reason=choice.reason,
            received_ns=ticket.received_ns,
            submission=ticket.submission,
            eligible=n_eligible,
            candidates=[_candidate(replica, choice) for replica in shown[:EXPLAINED]],
            excluded=self._registry.exclusions(ticket, ticket.request.capability),
            delegations=ticket.delegations,
        )


class _Eligible(Filter):
    """Whether a replica could take a ticket now."""

    def __init__(self, router: Router, ticket: Ticket) -> None:
        self._router = router
        self._ticket = ticket

    def passes(self, view: ReplicaView) -> bool:
        """See `Filter`."""
        return self._router.eligible(self._ticket, view)


def _fault(choice: object) -> str:
    """What is wrong with a policy's answer; "" if nothing is. Events must be able to carry it."""
    if not isinstance(choice, Choice):
        return f"answered {type(choice).__name__}, not a Choice"
    told: Any = choice  # users' code need not keep to the types
    if not isinstance(told.replica, str):
        return f"named {told.replica!r}, which is no replica's id"
    if not isinstance(told.reason, str):
        return f"gave {told.reason!r} as its reason, which is no text"
    if not isinstance(told.scores, Mapping):
        return f"gave {told.scores!r} as scores, which is no mapping"
    for replica, score in (*told.scores.items(), (told.replica, told.score)):
        if not isinstance(score, float | int) or not math.isfinite(score):
            return f"scored {replica} {score!r}, which is no finite number"
    return ""


def _where(raised: Exception) -> str:
    """File and line that raised it: whoever wrote the policy has no other trace of it."""
    trace, place = raised.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename.rpartition("/")[2]
        place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _candidate(replica: ReplicaView, choice: Choice) -> Candidate:
    score = choice.score if replica.id == choice.replica else choice.scores.get(replica.id)
    return Candidate(
        replica=replica.id,
        score=None if score is None else round(float(score), 4),  # a user's may be an int
        credit=replica.credit,
        running=replica.in_use,
        waiting=replica.waiting,
    )
