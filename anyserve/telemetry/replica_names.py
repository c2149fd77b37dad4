"""Which replica an event is about, where the event itself does not say."""

from __future__ import annotations

from anyserve.core.events import (
    AnyEvent,
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

    def learn(self, source: str, event: AnyEvent) -> None:
        """Note what this event says about its source.

        Replicas say these of themselves; the scheduler tells of theirs that were lost or are back.
        """
        if source == SCHEDULER:
            return
        if isinstance(event, ReplicaLoad | WorkerChanged | ReplicaChanged):
            self._by_source[source] = event.replica

    def knows(self, source: str) -> bool:
        """Whether it was heard which replica this source is."""
        return source in self._by_source

    def of(self, source: str, routed: RequestRouted | None = None) -> str:
        """The replica that speaks as `source`; what the scheduler said of the attempt wins."""
        return self._by_source.get(source, source) if routed is None else routed.replica
