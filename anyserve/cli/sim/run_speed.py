"""`anyserve sim --from-run RUN`: engines as fast as they were in that run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from anyserve.cli.session import Session
from anyserve.cli.sim.playing import ProgressLines
from anyserve.cli.sim.prepare import PreparedSim
from anyserve.core.events import Envelope
from anyserve.core.spec import ClusterSpec
from anyserve.sim.matching import Scales, Times, match, scaled, step_scale, times_of
from anyserve.sim.message_time import message_time_ns
from anyserve.sim.trial import tally_of
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
    of it has it. `message_ns`: of a message; None: not known. `off`: how far the simulation still
    is from the run, as a share."""

    scales: Scales
    message_ns: int | None
    off: float = 0.0

    def as_overrides(self, cluster: ClusterSpec) -> tuple[str, ...]:
        """The same as `--set` takes it, for the engines of this cluster."""
        found = {
            replica.group: round(scale, _DIGITS)
            for replica in cluster.replicas
            if (scale := step_scale(replica.engine, self.scales)) != replica.engine.step_scale
        }
        engines = tuple(
            f"cluster.replicas[{group}].engine.step_scale={value}" for group, value in found.items()
        )
        return (*self.network_overrides(), *engines)

    def network_overrides(self) -> tuple[str, ...]:
        """Those of them that are not of engines."""
        if self.message_ns is None:
            return ()
        latency = format_duration(self.message_ns)
        return (f"sim.network.latency={latency}", "sim.network.jitter=0s")

    def said(self) -> str:
        """The same in words."""
        parts = []
        if self.message_ns is not None:
            parts.append(f"a message takes {self.message_ns / _NS_PER_MS:.2g} ms")
        parts += [
            f"a step of {kind.label} {scale:.2f} times as long as its profile says"
            for kind, scale in self.scales.items()
            if scale != 1.0
        ]
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
    network = RunSpeed({}, message_time_ns(envelopes))
    prepared = recorded(network.network_overrides())
    compiled = prepared.compiled
    lines = ProgressLines(session.diagnostics.say, doing=_DOING)
    show = lines.show if prepared.options.says_progress else None

    def simulate(scales: Scales) -> Times:
        cluster = scaled(compiled.cluster, scales)
        lines.begin()
        again = dataclasses.replace(compiled, cluster=cluster)
        return times_of(tally_of(again, prepared.scenario_dir, show).requests, cluster)

    found = match(times_of(live.requests, compiled.cluster), simulate)
    return RunSpeed(found.scales, network.message_ns, found.off)
