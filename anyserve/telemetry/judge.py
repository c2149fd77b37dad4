"""How the expectations of a run stand while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from anyserve.core.events import Envelope, RequestOffered, StreamThinned
from anyserve.core.spec import Expectation
from anyserve.telemetry.expect import ExpectationResult, Verdict, evaluate
from anyserve.telemetry.summary import RunFacts, Slo, summary_of, to_dict
from anyserve.telemetry.tally import Tally

MOST_REQUESTS = 20_000
"""A longer run is judged at its end, by its log: what a screen keeps must stay bounded."""


class Standing(Enum):
    """`holding` and `not yet` are of a run that goes on; the others are final."""

    MET = "met"
    FAILED = "failed"
    HOLDING = "holding so far"
    NOT_YET = "not yet"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Judged:
    """One expectation: its text, the value so far, and how it stands. `line` of the scenario."""

    text: str
    standing: Standing
    actual: Any = None
    line: int | None = None
    note: str = ""


class Judge:
    """Counts envelopes as the summary does, and says how each expectation stands."""

    def __init__(
        self,
        expectations: Sequence[Expectation],
        slo: Mapping[str, Slo] | None = None,
        *,
        most_requests: int = MOST_REQUESTS,
    ) -> None:
        self._expectations = tuple(expectations)
        self._slo = dict(slo or {})
        self._most = most_requests
        self._requests = 0
        self._sampled = False
        self._tally = Tally()

    def add(self, envelope: Envelope) -> None:
        """Count one envelope."""
        if not self._expectations or self.overrun:
            return
        self._requests += isinstance(envelope.event, RequestOffered)
        self._sampled = self._sampled or isinstance(envelope.event, StreamThinned)
        self._tally.add(envelope)
        if self.overrun:
            self._tally = Tally()

    @property
    def overrun(self) -> bool:
        """There were more requests than are kept here, or not all of them are told."""
        return self._requests > self._most or self._sampled

    def judged(self) -> tuple[Judged, ...]:
        """Each expectation, in the order of the scenario."""
        if not self._expectations:
            return ()
        if self.overrun:
            many = "a sample of the" if self._sampled else f"more than {self._most}"
            note = f"{many} requests: judged at the end, by the log"
            return tuple(
                Judged(_text(one), Standing.UNKNOWN, line=one.line, note=note)
                for one in self._expectations
            )
        if not self._requests and self._tally.ended is None:
            return tuple(
                Judged(_text(one), Standing.NOT_YET, line=one.line) for one in self._expectations
            )
        summary = to_dict(summary_of(self._tally, self._slo, RunFacts()))
        ended = self._tally.ended is not None
        return tuple(_judged(one, ended=ended) for one in evaluate(self._expectations, summary))


def _judged(result: ExpectationResult, *, ended: bool) -> Judged:
    standing = {
        Verdict.OK: Standing.MET if ended else Standing.HOLDING,
        Verdict.FAILED: Standing.FAILED if ended else Standing.NOT_YET,
        Verdict.INCOMPLETE: Standing.UNKNOWN if ended else Standing.HOLDING,
        Verdict.UNKNOWN: Standing.UNKNOWN if ended else Standing.NOT_YET,
    }[result.verdict]
    return Judged(result.text, standing, result.actual, result.expectation.line, result.note)


def _text(wanted: Expectation) -> str:
    return wanted.text or f"{wanted.metric} {wanted.op} {wanted.value}"
