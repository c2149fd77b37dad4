"""Checks of the `faults` section."""

from __future__ import annotations

from collections.abc import Iterator

from anyserve.workload.checks.names import Names
from anyserve.workload.facts import duration_ns
from anyserve.workload.problems import Finding, nearest
from anyserve.workload.schema import FAULT_ACTIONS, Fault, ScenarioFile, format_duration
from anyserve.workload.schema.faults import ENDING_ACTIONS, OnProcess
from anyserve.workload.yaml_nodes import Loc


def faults_are_whole(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """Each has at most one action, on exactly one thing, and ends only if it can."""
    for index, fault in enumerate(file.faults):
        loc: Loc = ("faults", index)
        actions = fault.actions()
        if len(actions) > 1:
            said = " and ".join(actions)
            yield Finding(loc, "AS-S035", f"a fault has exactly one action, not {said}")
        if len(actions) != 1:
            continue
        ((name, what),) = actions.items()
        if isinstance(what, OnProcess) and (what.replica is None) == (what.worker is None):
            message = f"'{name}' hits one process: a replica or a worker"
            hint = f"write `{name}: {{replica: ID}}` or `{name}: {{worker: ID}}`"
            yield Finding((*loc, name), "AS-S035", message, hint, at_key=True)
        if fault.for_ is not None and name not in ENDING_ACTIONS:
            message = f"'{name}' happens at once and has no 'for'"
            hint = "write `down: 2s` inside it" if name.startswith("restart") else "leave it out"
            yield Finding((*loc, "for"), "AS-S035", message, hint, at_key=True)


def faults_do_something(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """Each has an action."""
    for index, fault in enumerate(file.faults):
        if not fault.actions():
            hint = f"one of {', '.join(FAULT_ACTIONS)}"
            yield Finding(("faults", index), "AS-S035", "this fault has no action", hint)


def fault_targets_exist(file: ScenarioFile, names: Names) -> Iterator[Finding]:
    """Each hits a replica by its id; the name of a group stands for several."""
    for index, fault in enumerate(file.faults):
        for field, action, target in _targets(fault):
            if target not in names.replicas:
                is_group = target in names.groups
                message = f"no replica '{target}'" + (" (it is a group)" if is_group else "")
                hint = nearest(target, names.replicas)
                yield Finding(("faults", index, action, field), "AS-S021", message, hint)


def _targets(fault: Fault) -> Iterator[tuple[str, str, str]]:
    for action, what in fault.actions().items():
        for field in ("replica", "worker"):
            target = getattr(what, field, None)
            if target is not None:
                yield field, action, target


def faults_come_in_time(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """A fault after the last phase would never happen."""
    end_ns = duration_ns(file)
    for index, fault in enumerate(file.faults):
        if fault.at >= end_ns:
            at, end = format_duration(fault.at), format_duration(end_ns)
            message = f"a fault at {at} comes after the end of the traffic at {end}"
            yield Finding(("faults", index, "at"), "AS-S038", message)
