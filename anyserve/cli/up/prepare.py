"""From the options of `up` to everything that a run needs; nothing is started here."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import Any

import msgspec

from anyserve.cli.up.options import UpOptions
from anyserve.errors import UsageError
from anyserve.runtime.engines.base import EngineKind
from anyserve.runtime.engines.detect import Detection, detect
from anyserve.workload.compile import Compiled, compile_scenario
from anyserve.workload.load import Scenario, live_problems, load_scenario
from anyserve.workload.problems import ScenarioInvalid
from anyserve.workload.schema import Engine, parse_duration

RESOLVED_SCHEMA = "anyserve.resolved/1"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that could start now. `detection`: what `engine: auto` means on this machine."""

    options: UpOptions
    scenario: Scenario
    compiled: Compiled
    detection: Detection

    @property
    def fallback(self) -> str:
        """Why replicas that could take vLLM get the model engine; "" where none does."""
        wants_auto = any(
            replica.engine.kind == "auto"
            for replica in self.scenario.file.cluster.replicas.values()
        )
        forced = self.options.engine not in {None, "auto"}
        if not wants_auto or forced or self.detection.engine is not EngineKind.MODEL:
            return ""
        return self.detection.reason

    def machine_facts(self) -> dict[str, Any]:
        """What the summary says about the machine."""
        found = self.detection
        engines = sorted({replica.engine.kind for replica in self.compiled.cluster.replicas})
        return {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "vllm": f"{found.version} ({found.build.value})" if found.version else None,
            "engines": engines,
            "engine_fallback": self.fallback or None,
        }

    def resolved(self) -> dict[str, Any]:
        """What is run, after defaults and flags: `scenario.resolved.json`."""
        compiled = self.compiled
        return {
            "schema": RESOLVED_SCHEMA,
            "file": str(self.options.scenario),
            "command": self.options.command_line(),
            "seed": compiled.seed,
            "scenario": self.scenario.to_plain(),
            "cluster": msgspec.to_builtins(compiled.cluster),
            "expectations": msgspec.to_builtins(compiled.expectations),
            "faults": msgspec.to_builtins(compiled.faults),
            "slo": msgspec.to_builtins(dict(compiled.slo)),
            "machine": self.machine_facts(),
        }


def prepare(options: UpOptions) -> Prepared:
    """Read, check and compile the scenario.

    Raises:
        ScenarioInvalid: it is not valid, or wants what a live cluster cannot do.
        UsageError: an option does not fit.
    """
    scenario = load_scenario(options.scenario, _overrides(options))
    problems = live_problems(scenario)
    if problems:
        raise ScenarioInvalid(problems)
    detection = detect()

    def engine_kind(_section: Engine) -> str:
        return detection.engine.value

    compiled = compile_scenario(
        scenario,
        seed=options.seed,
        entry=options.entry,
        duration_ns=_duration_ns(options.duration),
        engine_kind=engine_kind,
    )
    return Prepared(options, scenario, compiled, detection)


def _overrides(options: UpOptions) -> tuple[str, ...]:
    if options.engine is None:
        return options.overrides
    # Last, so that it wins over what --set says.
    return (*options.overrides, f"cluster.replicas[*].engine.kind={options.engine}")


def _duration_ns(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        hint = "write a duration as 250ms, 60s or 1m30s"
        raise UsageError(f"--duration: {error}", code="bad_duration", hint=hint) from None
