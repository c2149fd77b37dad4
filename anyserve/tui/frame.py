"""One picture: everything that the screens show at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from anyserve.telemetry.advisor import Advice
from anyserve.telemetry.judge import Judged
from anyserve.telemetry.run_plan import RunPlan
from anyserve.telemetry.source import SourceKind
from anyserve.telemetry.views import SecondView, Snapshot

RATE_S = 10
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Player:
    """Where a replay stands. Times in seconds from the start of the traffic."""

    playing: bool
    speed: float
    at_s: float
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second over the last ten seconds; None before there was anything."""

    offered: float | None = None
    completed: float | None = None
    tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """A snapshot, and what stands around it. `ended`: the source has no more events."""

    snapshot: Snapshot
    kind: SourceKind
    facts: Mapping[str, str]
    plan: RunPlan = field(default_factory=RunPlan)
    judged: tuple[Judged, ...] = ()
    advice: tuple[Advice, ...] = ()
    player: Player | None = None
    ended: bool = False
    trouble: str = ""
    """Why there are no more events, where that is not how it should be."""
    rates: Rates = field(default_factory=Rates)

    @property
    def zero_ns(self) -> int:
        """The start of the traffic on the run's clock; until it begins, the first notice's time."""
        if self.snapshot.run is not None:
            return self.snapshot.run.started_ns
        notices = self.snapshot.notices
        return notices[0].at_ns if notices else self.snapshot.now_ns

    @property
    def run_s(self) -> float | None:
        """Seconds since the traffic began; None where it has not."""
        if self.player is not None:
            return self.player.at_s
        return None if self.snapshot.run is None else self.seconds(self.snapshot.now_ns)

    @property
    def length_s(self) -> float:
        """How long the run is: as recorded, as planned, or as long as it lasted so far."""
        planned = 0.0 if self.snapshot.run is None else self.snapshot.run.planned_s
        known = max(planned, self.plan.length_s)
        return max(known, self.player.end_s if self.player is not None else 0.0)

    def seconds(self, at_ns: int) -> float:
        """A time of the run's clock as seconds since the traffic began."""
        return (at_ns - self.zero_ns) / _NS_PER_S


def rates_of(snapshot: Snapshot) -> Rates:
    """What happened per second, over the last ten whole seconds."""
    now = snapshot.now_ns // _NS_PER_S
    begun = snapshot.seconds[0].second if snapshot.seconds else now
    length = min(RATE_S, now - begun)
    if length <= 0:
        return Rates()
    recent = [one for one in snapshot.seconds if now - length <= one.second < now]

    def per_second(pick: str) -> float:
        return sum(_value(one, pick) for one in recent) / length

    return Rates(per_second("offered"), per_second("completed"), per_second("output_tokens"))


def _value(second: SecondView, name: str) -> int:
    value = getattr(second, name)
    assert isinstance(value, int)
    return value
