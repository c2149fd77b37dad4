"""`anyserve sim --from-run RUN`: engines as fast as they were in that run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from anyserve.cli.session import Session
from anyserve.cli.sim.playing import ProgressLines
from anyserve.cli.sim.prepare import PreparedSim
from anyserve.core.events import Envelope
from anyserve.core.spec import ClusterSpec
from anyserve.sim.engine_times import TimesByKind, prompts_of, times_of
from anyserve.sim.handover_time import handover_time_ns
from anyserve.sim.matching import Scales, match, scaled_engine, simulated_times
from anyserve.sim.message_time import message_time_ns
from anyserve.telemetry.tally import Tally
from anyserve.workload.schema.types import format_duration

_DIGITS: Final = 4
_FAR: Final = 0.02
"""Worth a word: further from the run than what two runs differ by."""
_NS_PER_MS: Final = 1_000_000
_DOING: Final = "matching the speed of the run: "


@dataclass(frozen=True, slots=True)
class RunSpeed:
    """How fast a run was. `scales`: how many times as long each kind of engine took as a simulation
    of it has it. `message_ns`: of a message, `handover_ns`: from a replica to its engine; None: not
    known. `off`: how far the simulation still is from the run, as a share."""

    scales: Scales
    message_ns: int | None
    handover_ns: int | None
    off: float = 0.0

    def as_overrides(self, cluster: ClusterSpec) -> tuple[str, ...]:
        """The same as `--set` takes it, for the engines of this cluster."""
        found = {}
        for replica in cluster.replicas:
            before, engine = replica.engine, scaled_engine(replica.engine, self.scales)
            at = f"cluster.replicas[{replica.group}].engine"
            if engine.step_scale != before.step_scale:
                found[f"{at}.step_scale"] = engine.step_scale
            if engine.prefill_scale != before.prefill_scale:
                found[f"{at}.prefill_scale"] = engine.prefill_scale
        engines = (f"{path}={round(scale, _DIGITS)}" for path, scale in found.items())
        return (*self.overrides_of_ways(), *engines)

    def overrides_of_ways(self) -> tuple[str, ...]:
        """Those of them that are not of engines."""
        found: list[str] = []
        if self.message_ns is not None:
            latency = format_duration(self.message_ns)
            found += [f"sim.network.latency={latency}", "sim.network.jitter=0s"]
        if self.handover_ns is not None:
            found.append(f"sim.handover={format_duration(self.handover_ns)}")
        return tuple(found)

    def said(self) -> str:
        """The same in words."""
        parts = []
        if self.message_ns is not None:
            parts.append(f"a message takes {self.message_ns / _NS_PER_MS:.2g} ms")
        if self.handover_ns is not None:
            parts.append(f"the way to an engine {self.handover_ns / _NS_PER_MS:.2g} ms")
        for kind, scale in self.scales.items():
            if scale.steps != 1.0:
                times = f"{scale.steps:.2f} times as long as its profile says"
                parts.append(f"a step of {kind.label} {times}")
            if scale.prompts != 1.0:
                whose = "its prompts" if scale.steps != 1.0 else f"prompts of {kind.label}"
                parts.append(f"{whose} {scale.steps * scale.prompts:.2f} times")
        if self.off > _FAR:
            parts.append(f"no nearer than {self.off:.0%}")
        return ", ".join(parts)


def speed_of_run(
    session: Session,
    envelopes: Sequence[Envelope],
    recorded: Callable[[tuple[str, ...]], PreparedSim],
) -> RunSpeed:
    """How fast a run was, found by simulating it until answers take as long.

    `recorded` prepares the run as it was, with these overrides. Long work says how far it is, where
    its options do not ask for silence.

    Raises:
        AnyServeError: it cannot be simulated.
    """
    live = Tally()
    for envelope in envelopes:
        live.add(envelope)
    ways = RunSpeed({}, message_time_ns(envelopes), handover_time_ns(envelopes))
    prepared = recorded(ways.overrides_of_ways())
    compiled = prepared.compiled
    lines = ProgressLines(session.diagnostics.say, doing=_DOING)
    show = lines.show if prepared.options.says_progress else None

    def simulate(scales: Scales) -> TimesByKind:
        lines.begin()
        return simulated_times(compiled, scales, prepared.scenario_dir, show)

    of_run = times_of(live.requests, prompts_of(envelopes), compiled.cluster)
    found = match(of_run, simulate)
    return replace(ways, scales=found.scales, off=found.off)
