"""One simulation as a function: from a scenario, changes and a seed to the data of a summary.

Everything in and out can be sent to another process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from anyserve.collecting import no_collecting
from anyserve.sim.engines import modelled
from anyserve.sim.recorder import Counted, Recorder, Sample
from anyserve.sim.simulation import Progress, Simulation
from anyserve.telemetry.summary import RunFacts, Slo, summary_of, to_dict
from anyserve.telemetry.tally import Tally
from anyserve.workload.compile import Compiled, compile_scenario
from anyserve.workload.load import Scenario, load_scenario
from anyserve.workload.overrides import NOTHING_EXPECTED


@dataclass(frozen=True, slots=True)
class Trial:
    """What is simulated. `overrides` are `PATH=VALUE`; `duration_ns` as of `--duration`."""

    scenario: str
    overrides: tuple[str, ...]
    seed: int
    duration_ns: int | None = None

    def load(self) -> Scenario:
        """The scenario with these changes. Without what it expects: trials are compared, not
        judged, and what is expected of a replica makes no sense where a trial has others.

        Raises:
            AnyServeError: it is not valid.
        """
        return load_scenario(Path(self.scenario), (*self.overrides, NOTHING_EXPECTED))


def run_trial(trial: Trial) -> dict[str, Any]:
    """The summary of a trial, as `summary.json` has it.

    Raises:
        AnyServeError: the scenario with these changes is not valid, or cannot be simulated.
    """
    with no_collecting():
        return _summary_of(trial)


def _summary_of(trial: Trial) -> dict[str, Any]:
    compiled = compile_scenario(
        trial.load(), seed=trial.seed, duration_ns=trial.duration_ns, engine_kind=modelled
    )
    tally = Tally()
    count(compiled, Counted(tally), str(Path(trial.scenario).absolute().parent))
    slo = {
        name: msgspec.convert(msgspec.to_builtins(one), Slo) for name, one in compiled.slo.items()
    }
    facts = RunFacts(scenario=compiled.cluster.name, seed=trial.seed, kind="sim")
    return to_dict(summary_of(tally, slo, facts))


def count(
    compiled: Compiled,
    recorder: Recorder,
    scenario_dir: str,
    show: Callable[[Progress], None] | None = None,
) -> None:
    """Simulate for the figures alone: `recorder` is told of requests what is counted. `show` is
    told how far it is.

    Raises:
        AnyServeError: it cannot be simulated.
    """
    simulation = Simulation(
        compiled, recorder, sample=Sample(_UNEXPLAINED), scenario_dir=scenario_dir
    )
    while not simulation.over:
        simulation.advance()
        if show is not None:
            show(simulation.progress())


_UNEXPLAINED = 0.0
"""Nobody reads why a trial's requests went where they went."""
