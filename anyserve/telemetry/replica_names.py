"""Which replica an event is about, where the event itself does not say."""

from __future__ import annotations

from anyserve.core.events import (
    Envelope,
    ReplicaChanged,
    ReplicaLoad,
    RequestRouted,
    WorkerChanged,
)

SCHEDULER = "scheduler"


class ReplicaNames:
    """Learns from the stream which source is which replica; a source unknown is its own name."""

    __slots__ = ("_by_source",)

    def __init__(self) -> None:
        self._by_source: dict[str, str] = {}

    def learn(self, envelope: Envelope) -> None:
        """Note what this event says about its source.

        Replicas say these of themselves; the scheduler tells of theirs that were lost or are back.
        """
        if envelope.source == SCHEDULER:
            return
        match envelope.event:
            case ReplicaLoad(replica=replica) | WorkerChanged(replica=replica):
                self._by_source[envelope.source] = replica
            case ReplicaChanged(replica=replica):
                self._by_source[envelope.source] = replica
            case _:
                pass

    def of(self, source: str, routed: RequestRouted | None = None) -> str:
        """The replica that speaks as `source`; what the scheduler said of the attempt wins."""
        return self._by_source.get(source, source) if routed is None else routed.replica
