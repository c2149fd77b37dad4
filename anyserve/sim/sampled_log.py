"""What is recorded of a simulation of which a share of the requests is kept."""

from __future__ import annotations

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

    def count(self, t: int, source: str, count: Count) -> None:
        """See `Recorder`."""
        self._tally.count(t, source, count)

    def take(self, t: int, source: str, incarnation: int, seq: int, event: AnyEvent) -> None:
        """One more event."""
        self._tally.follow(t, source, incarnation, seq, event)
        request_id = getattr(event, "id", None)
        if request_id is not None and not self._sample.took(request_id):
            return
        life = (source, incarnation)
        kept = self._seqs.get(life, 0)
        self._seqs[life] = kept + 1
        self._recorder.take(t, source, incarnation, kept, event)
