"""What is recorded of a simulation of which a share of the requests is kept."""

from __future__ import annotations

from typing import Any

from anyserve.core.counts import Count
from anyserve.core.events import AnyEvent
from anyserve.sim.recorder import Recorder, Sample
from anyserve.telemetry.tally import Tally


class SampledLog(Recorder):
    """Counts every request, and records those of a sample of the requests, numbered anew.

    Args:
        recorder: takes what is recorded.
        sample: that of the simulation, which draws it.
        tally: counts all.
    """

    def __init__(self, recorder: Recorder, sample: Sample, tally: Tally) -> None:
        self._recorder = recorder
        self._sample = sample
        self._tally = tally
        self._seqs: dict[tuple[str, int], int] = {}
        self._of_requests: dict[type, bool] = {}
        """Whether events of a kind are of a request."""

    def count(self, t: int, source: str, count: Count) -> None:
        """See `Recorder`."""
        self._tally.count(t, source, count)

    def take(self, t: int, source: str, incarnation: int, seq: int, event: AnyEvent) -> None:
        """One more event."""
        self._tally.follow(t, source, incarnation, seq, event)
        kind = type(event)
        of_request = self._of_requests.get(kind)
        if of_request is None:  # asked once: to ask for what is not there takes long
            of_request = self._of_requests[kind] = "id" in kind.__struct_fields__
        told: Any = event
        if of_request and not self._sample.took(told.id):
            return
        life = (source, incarnation)
        kept = self._seqs.get(life, 0)
        self._seqs[life] = kept + 1
        self._recorder.take(t, source, incarnation, kept, event)
