"""What becomes of requests that are not told one by one: only sums, a few words per request.

The sums are those that `Reducer` keeps. A test folds the same log both ways and compares.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final

from anyserve.core.events import (
    AttemptEnded,
    AttemptStarted,
    Envelope,
    RequestDelegated,
    RequestOffered,
    RequestOutcome,
    RequestReentered,
    RequestRouted,
    RequestSums,
)
from anyserve.telemetry.replica_names import ReplicaNames

REENTRY_COUNTS: Final = {"lost": "recoveries", "refuse": "refusals", "return": "returns"}
"""What each way back is counted as; delegations are counted by their own event."""
_MOST_EARLY: Final = 32


@dataclass(slots=True)
class _Known:
    """What must be remembered of a request to count it right."""

    asked: str | None = None
    settled: bool = False
    last_delegated: int | None = None
    replica: str = "?"
    early: list[Envelope] = field(default_factory=list)
    """Came before its offer, by which alone its capability is known."""


class Sums:
    """Counts requests; `take` gives what came together since the last time.

    `most`: requests remembered; beyond it the oldest are forgotten, and what is said of them later
    is counted without their capability.
    """

    def __init__(self, names: ReplicaNames, most: int) -> None:
        self.open = 0
        self._names = names
        self._most = most
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._clear()

    def _clear(self) -> None:
        self._counts: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self._capabilities: dict[str, Counter[str]] = {}
        self._replicas: dict[str, Counter[str]] = {}
        self._cells: dict[tuple[str, str], list[int]] = {}
        self._edges: Counter[tuple[str, str, str]] = Counter()

    def take(self) -> RequestSums:
        """The sums so far; they begin anew."""
        sums = RequestSums(
            counts=self._counts,
            codes=self._codes,
            capabilities=self._capabilities,
            replicas=self._replicas,
            cells=[
                (asked, replica, counts[0], counts[1])
                for (asked, replica), counts in self._cells.items()
            ],
            edges=[(*edge, count) for edge, count in self._edges.items()],
        )
        self._clear()
        return sums

    def add(self, request_id: str, envelope: Envelope) -> None:
        """Count one event of a request."""
        known = self._known.get(request_id)
        if known is None:
            known = self._known[request_id] = _Known()
            if len(self._known) > self._most:
                _, oldest = self._known.popitem(last=False)
                self.open -= oldest.asked is not None and not oldest.settled
        event = envelope.event
        if isinstance(event, RequestOffered):
            self._offered(known, event)
        elif known.asked is None:
            known.early.append(envelope)
            del known.early[:-_MOST_EARLY]
        else:
            self._count(known, envelope)

    def _offered(self, known: _Known, event: RequestOffered) -> None:
        if known.asked is not None:
            return
        known.asked = event.capability
        self.open += 1
        self._counts["offered"] += 1
        self._counts["prompt_tokens"] += event.prompt_tokens
        self._capability(event.capability)["offered"] += 1
        early, known.early = known.early, []
        for envelope in early:
            self._count(known, envelope)

    def _count(self, known: _Known, envelope: Envelope) -> None:
        match envelope.event:
            case RequestRouted(replica=replica):
                known.replica = replica
            case AttemptStarted() as started:
                self._started(known, self._names.of(envelope.source), started)
            case AttemptEnded(status=status) if status != "cancelled":
                name = "completed" if status == "completed" else "failed"
                self._replica(self._names.of(envelope.source))[name] += 1
            case RequestDelegated() as delegated:
                self._delegated(known, delegated)
            case RequestReentered(kind=kind, replica=replica):
                self._counts[REENTRY_COUNTS.get(kind, kind)] += 1
                if kind == "lost":
                    self._replica(replica or known.replica)["lost"] += 1
            case RequestOutcome() as outcome:
                self._outcome(known, outcome)
            case _:
                pass

    def _started(self, known: _Known, replica: str, event: AttemptStarted) -> None:
        known.replica = replica
        delegated = known.last_delegated is not None and known.last_delegated < event.attempt
        self._replica(replica)["started"] += 1
        cell = self._cells.setdefault((known.asked or "?", replica), [0, 0])
        cell[0] += 1
        if delegated:
            cell[1] += 1
            self._replica(replica)["delegated_in"] += 1

    def _delegated(self, known: _Known, event: RequestDelegated) -> None:
        self._counts["delegated_requests"] += known.last_delegated is None
        known.last_delegated = event.attempt
        self._counts["delegations"] += 1
        self._edges[event.from_capability, event.to_capability, event.reason] += 1
        self._capability(event.from_capability)["delegated"] += 1
        self._replica(event.replica)["delegated_out"] += 1

    def _outcome(self, known: _Known, event: RequestOutcome) -> None:
        if known.settled:
            return
        known.settled = True
        self.open -= 1
        self._counts[event.outcome] += 1
        self._counts["output_tokens"] += event.n_tokens
        self._capability(known.asked or "?")[event.outcome] += 1
        if event.code is not None:
            self._codes[event.code] += 1

    def _capability(self, name: str) -> Counter[str]:
        return self._capabilities.setdefault(name, Counter())

    def _replica(self, name: str) -> Counter[str]:
        return self._replicas.setdefault(name, Counter())
