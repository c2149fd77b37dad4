"""From the options of `sim` to everything that a simulation needs."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from anyserve.cli.sim.options import SimOptions
from anyserve.errors import UsageError
from anyserve.sim.engines import modelled
from anyserve.workload.compile import Compiled, compile_scenario
from anyserve.workload.load import Scenario, load_scenario
from anyserve.workload.policies import try_policy
from anyserve.workload.schema import parse_duration

RESOLVED_SCHEMA: Final = "anyserve.resolved/1"


@dataclass(frozen=True, slots=True)
class PreparedSim:
    """A simulation that could start now. `policy`: whose policy runs, where it is the user's.
    `speed`: how long engines take so that they are as fast as in the run played again, in words."""

    options: SimOptions
    scenario: Scenario
    compiled: Compiled
    policy: str
    speed: str = ""

    @property
    def scenario_dir(self) -> str:
        """Where users' classes are looked for first."""
        return str(self.options.scenario.absolute().parent)

    def resolved(self) -> dict[str, Any]:
        """What is run, after defaults and flags: `scenario.resolved.json`."""
        compiled = self.compiled
        return {
            "schema": RESOLVED_SCHEMA,
            "kind": "sim",
            "file": str(self.options.scenario),
            "command": self.options.command_line(),
            "seed": compiled.seed,
            "sample": self.options.sample,
            "from_run": self.options.from_run,
            "scenario": self.scenario.to_plain(),
            "cluster": msgspec.to_builtins(compiled.cluster),
            "expectations": msgspec.to_builtins(compiled.expectations),
            "faults": msgspec.to_builtins(compiled.faults),
            "slo": msgspec.to_builtins(dict(compiled.slo)),
            "sim": msgspec.to_builtins(compiled.sim),
            "machine": {"platform": platform.platform(), "python": platform.python_version()},
        }


def prepare_sim(options: SimOptions) -> PreparedSim:
    """Read, check and compile the scenario.

    Raises:
        ScenarioInvalid: it is not valid.
        UsageError: an option does not fit.
        PluginError: the user's policy cannot be used.
    """
    return compile_sim(options, load_scenario(options.scenario, options.overrides))


def compile_sim(options: SimOptions, scenario: Scenario) -> PreparedSim:
    """Compile a scenario that was read.

    Raises:
        UsageError: an option does not fit.
        PluginError: the user's policy cannot be used.
    """
    compiled = compile_scenario(
        scenario,
        seed=options.seed,
        entry=options.entry,
        duration_ns=duration_ns(options.duration),
        engine_kind=modelled,
    )
    own = try_policy(compiled.cluster.scheduler, str(options.scenario.absolute().parent))
    return PreparedSim(options, scenario, compiled, own.said if own is not None else "")


def duration_ns(text: str | None) -> int | None:
    """The value of `--duration` in nanoseconds.

    Raises:
        UsageError: it is no duration.
    """
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        hint = "write a duration as 250ms, 60s or 1m30s"
        raise UsageError(f"--duration: {error}", code="bad_duration", hint=hint) from None
