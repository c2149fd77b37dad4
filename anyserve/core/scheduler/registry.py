"""Who is there, what they offer, and which of them have credit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from anyserve.core.capability import any_serves, attributes_match, is_short_enough
from anyserve.core.messages import Offer, Registration, ReplicaState, Request
from anyserve.core.scheduler.pool import Pool
from anyserve.core.scheduler.state import ReplicaView, Ticket

OfferClass = tuple[tuple[tuple[str, str], ...], int | None]
"""Attributes and context limit: replicas of one class admit the same requests."""

_NOBODY: Final[dict[OfferClass, set[str]]] = {}


class Registry:
    """All replicas heard of, and indexes over those that could serve now or later."""

    def __init__(self, known_capabilities: Iterable[str]) -> None:
        self.replicas: dict[str, ReplicaView] = {}
        self.pools: dict[str, Pool] = {}
        self.known = set(known_capabilities)
        self._live: dict[str, dict[OfferClass, set[str]]] = {}
        self._indexed: dict[str, tuple[Offer, ...]] = {}

    def register(self, registration: Registration, now: int) -> ReplicaView:
        """Fold a registration that is news into its replica."""
        view = self.replicas.get(registration.replica)
        if view is None:
            view = ReplicaView(registration, now)
            self.replicas[view.id] = view
        else:
            view.take_registration(registration, now)
        self.known.update(offer.capability for offer in view.offers)
        self.reindex(view)
        return view

    def mark_lost(self, view: ReplicaView, now: int, *, silent: bool) -> None:
        """Its process is gone or cut off; it stays known, since it may come back.

        One that was only `silent` comes back by being heard, any other by a new registration.
        """
        view.hushed = view.state if silent else None
        view.become(ReplicaState.LOST)
        view.lost_ns = now
        self.reindex(view)

    def mark_heard(self, view: ReplicaView) -> None:
        """One that was lost for its silence is as it was before."""
        assert view.hushed is not None
        view.become(view.hushed)
        view.hushed = view.lost_ns = None
        self.reindex(view)

    def reindex(self, view: ReplicaView) -> None:
        """Bring the index of offers in line with the view's state."""
        for offer in self._indexed.pop(view.id, ()):
            self._live[offer.capability][_offer_class(offer)].discard(view.id)
        if view.may_serve_later:
            for offer in view.offers:
                classes = self._live.setdefault(offer.capability, {})
                classes.setdefault(_offer_class(offer), set()).add(view.id)
            self._indexed[view.id] = view.offers
        self.touch(view)

    def touch(self, view: ReplicaView) -> None:
        """Bring the pools in line with the view's credit and load."""
        has_room = view.takes_work and view.credit > 0
        for capability in view.capabilities:
            pool = self.pool(capability)
            if has_room:
                pool.put(view)
            else:
                pool.drop(view.id)

    def pool(self, capability: str) -> Pool:
        """The replicas with credit that offer this capability."""
        pool = self.pools.get(capability)
        if pool is None:
            pool = self.pools[capability] = Pool()
        return pool

    def is_offered(self, capability: str) -> bool:
        """Whether a replica that serves now or soon offers it."""
        return any(self._live.get(capability, {}).values())

    def offering(self, capability: str) -> list[str]:
        """Replicas that offer it and serve now or soon, in order of their ids."""
        return sorted(
            replica for some in self._live.get(capability, {}).values() for replica in some
        )

    def servers(self, request: Request, capability: str) -> Iterator[str]:
        """Replicas that serve now or soon, match, and admit the request as `capability`."""
        tokens = request.prompt_tokens + request.max_tokens
        for (attributes, limit), replicas in self._live.get(capability, {}).items():
            if (limit is None or tokens <= limit) and (
                not request.attributes or attributes_match(request.attributes, dict(attributes))
            ):
                yield from replicas

    def has_server(self, ticket: Ticket, capability: str) -> bool:
        """Whether somebody can serve the ticket, now or soon, who is not excluded for it."""
        request = ticket.request
        tokens = request.prompt_tokens + request.max_tokens
        avoided = ticket.excluded or ticket.refused_by
        for (attributes, limit), replicas in self._live.get(capability, _NOBODY).items():
            if (limit is not None and tokens > limit) or not (
                not request.attributes or attributes_match(request.attributes, dict(attributes))
            ):
                continue
            if not avoided:
                if replicas:
                    return True
            elif any(
                replica not in ticket.excluded and replica not in ticket.refused_by
                for replica in replicas
            ):
                return True
        return False

    def may_return(self, request: Request, capability: str, now: int, patience_ns: int) -> bool:
        """Whether a replica that could serve was lost less than `patience_ns` ago."""
        return any(
            view.lost_ns is not None
            and now - view.lost_ns < patience_ns
            and view_serves(view, request, capability)
            for view in self.replicas.values()
            if view.state is ReplicaState.LOST
        )

    def exclusions(self, ticket: Ticket, capability: str) -> dict[str, int]:
        """How many replicas are no candidates, per reason; O(offer classes + exclusions)."""
        request, counts = ticket.request, dict[str, int]()
        tokens = request.prompt_tokens + request.max_tokens
        offering = 0
        for (attributes, limit), replicas in self._live.get(capability, {}).items():
            offering += len(replicas)
            if request.attributes and not attributes_match(request.attributes, dict(attributes)):
                _count(counts, "attributes", len(replicas))
            elif limit is not None and tokens > limit:
                _count(counts, "too_long", len(replicas))
        _count(counts, "not_offered", len(self.replicas) - offering)
        _count(counts, "no_credit", offering - len(self.pool(capability)))
        if ticket.excluded or ticket.refused_by:
            _count(counts, "tried", len(ticket.excluded | ticket.refused_by))
        return counts


def view_serves(view: ReplicaView, request: Request, capability: str) -> bool:
    """Whether one of the replica's offers matches and admits the request as `capability`."""
    return is_short_enough(view.most_tokens, request, capability) and (
        not request.attributes or any_serves(view.offers, request, capability)
    )


def _offer_class(offer: Offer) -> OfferClass:
    return tuple(sorted(offer.attributes.items())), offer.limits.max_tokens


def _count(counts: dict[str, int], reason: str, n: int) -> None:
    if n > 0:
        counts[reason] = counts.get(reason, 0) + n
