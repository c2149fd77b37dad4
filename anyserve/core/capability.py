"""Capability names, attributes, what matches what, and the upgrade ladder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from anyserve.core.messages import Offer, Request
from anyserve.errors import ScenarioError

NAME: Final = re.compile(r"[a-z][a-z0-9]*([._-][a-z0-9]+)*")
ID: Final = re.compile(r"[a-z0-9-]{1,32}")
UNLIMITED: Final = 1 << 60
"""Tokens that no request has."""


def is_name(text: str) -> bool:
    """Whether `text` can name a capability: lower case words joined by dots, `decode.heavy`."""
    return NAME.fullmatch(text) is not None and len(text) <= 64  # noqa: PLR2004


def is_id(text: str) -> bool:
    """Whether `text` can stand in a topic as the id of a process."""
    return ID.fullmatch(text) is not None


def attributes_match(wanted: Mapping[str, str], offered: Mapping[str, str]) -> bool:
    """Whether every attribute that is wanted is offered with that value."""
    return not wanted or all(offered.get(key) == value for key, value in wanted.items())


def admits(offer: Offer, request: Request) -> bool:
    """Whether the offer's limits hold the request: prompt and requested tokens fit the context."""
    limit = offer.limits.max_tokens
    return limit is None or request.prompt_tokens + request.max_tokens <= limit


def most_tokens(offers: Iterable[Offer]) -> dict[str, int]:
    """By capability, the longest request without attributes that an offer admits: to be read."""
    most: dict[str, int] = {}
    for offer in offers:
        limit = offer.limits.max_tokens
        known = most.get(offer.capability, 0)
        most[offer.capability] = max(known, UNLIMITED if limit is None else limit)
    return _shared(tuple(most.items()))


@lru_cache(maxsize=1024)
def _shared(items: tuple[tuple[str, int], ...]) -> dict[str, int]:
    """One object for the many replicas that are alike: what all read stays in the cache."""
    return dict(items)


def is_short_enough(most: dict[str, int], request: Request, capability: str) -> bool:
    """Whether an offer may admit the request as `capability`, and does if it has no attributes.
    `most`: see `most_tokens`."""
    limit = most.get(capability)
    return limit is not None and request.prompt_tokens + request.max_tokens <= limit


def any_serves(offers: Iterable[Offer], request: Request, capability: str) -> bool:
    """Whether one of the offers matches and admits the request as `capability`."""
    return any(
        offer.capability == capability
        and admits(offer, request)
        and attributes_match(request.attributes, offer.attributes)
        for offer in offers
    )


class Ladder:
    """The acyclic map from a capability to its next stronger one.

    Raises:
        ScenarioError: the map has a cycle; the message shows it.
    """

    def __init__(self, upgrades: Mapping[str, str]) -> None:
        self._upgrades = dict(upgrades)
        for start in self._upgrades:
            cycle = self._cycle_from(start)
            if cycle:
                raise ScenarioError(
                    f"the upgrade ladder has a cycle: {' -> '.join(cycle)}",
                    code="ladder_cycle",
                    hint="every upgrade must lead to a stronger capability; remove one of these",
                )

    def above(self, capability: str) -> str | None:
        """The next rung, if there is one."""
        return self._upgrades.get(capability)

    def rungs(self, capability: str) -> Iterator[str]:
        """This capability and every rung above it, nearest first."""
        rung: str | None = capability
        while rung is not None:
            yield rung
            rung = self._upgrades.get(rung)

    def is_at_or_above(self, higher: str, lower: str) -> bool:
        """Whether `higher` can be reached from `lower` by going up zero or more rungs."""
        return any(rung == higher for rung in self.rungs(lower))

    def _cycle_from(self, start: str) -> list[str]:
        path = [start]
        while (rung := self._upgrades.get(path[-1])) is not None:
            if rung in path:
                return [*path[path.index(rung) :], rung]
            path.append(rung)
        return []
