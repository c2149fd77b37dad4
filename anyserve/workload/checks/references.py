"""Checks that every name that is used is also given."""

from __future__ import annotations

from collections.abc import Iterator

from anyserve.workload.checks.names import Names
from anyserve.workload.expectations import parse_expectation
from anyserve.workload.problems import Finding, nearest
from anyserve.workload.schema import Ingress, ScenarioFile
from anyserve.workload.yaml_nodes import Loc


def capabilities_exist(file: ScenarioFile, names: Names) -> Iterator[Finding]:
    """Upgrades, replicas, streams and SLOs name declared capabilities."""
    for loc, capability, at_key in _capability_uses(file):
        if capability not in names.capabilities:
            message = f"no capability '{capability}' in cluster.capabilities"
            hint = nearest(capability, names.capabilities)
            yield Finding(loc, "AS-S020", message, hint, at_key=at_key)


def _capability_uses(file: ScenarioFile) -> Iterator[tuple[Loc, str, bool]]:
    for name, capability in file.cluster.capabilities.items():
        if capability.upgrade is not None:
            yield ("cluster", "capabilities", name, "upgrade"), capability.upgrade, False
    for name, replica in file.cluster.replicas.items():
        for offered in replica.capabilities:
            yield ("cluster", "replicas", name, "capabilities", offered), offered, True
    for name, stream in file.traffic.streams.items():
        yield ("traffic", "streams", name, "capability"), stream.capability, False
    for name in file.slo.capabilities:
        yield ("slo", "capabilities", name), name, True
    if file.ingress is not None:
        yield from _ingress_uses(file.ingress)


def _ingress_uses(ingress: Ingress) -> Iterator[tuple[Loc, str, bool]]:
    for name, model in ingress.models.items():
        yield ("ingress", "models", name), model.capability, False
    for task, default in ingress.defaults:
        if default is not None:
            yield ("ingress", "defaults", task), default, False


def entries_exist(file: ScenarioFile, names: Names) -> Iterator[Finding]:
    """A stream enters at the scheduler, at any replica, at a replica or at a group."""
    known = {"scheduler", "any"} | names.replicas | names.groups
    for name, stream in file.traffic.streams.items():
        if stream.entry not in known:
            loc = ("traffic", "streams", name, "entry")
            message = f"no replica '{stream.entry}' to enter at"
            yield Finding(loc, "AS-S021", message, nearest(stream.entry, known))


def rates_name_streams(file: ScenarioFile, names: Names) -> Iterator[Finding]:
    """A phase sets rates of streams that exist."""
    for index, phase in enumerate(file.traffic.phases):
        for name in phase.rates:
            if name not in names.streams:
                loc = ("traffic", "phases", index, "rates", name)
                message = f"no stream '{name}' in traffic.streams"
                yield Finding(loc, "AS-S025", message, nearest(name, names.streams), at_key=True)


def expectations_name_metrics(file: ScenarioFile, names: Names) -> Iterator[Finding]:
    """Each expectation is METRIC OP VALUE, of metrics that a summary has."""
    known = names.metrics
    for index, text in enumerate(file.expect):
        loc: Loc = ("expect", index)
        expectation = parse_expectation(text)
        if expectation is None:
            hint = "write METRIC OP VALUE with blanks between, such as `ttft.p95_ms < 800`"
            yield Finding(loc, "AS-S027", "not an expectation", hint)
            continue
        for path in known.lacking(expectation):
            yield Finding(loc, "AS-S026", f"no metric '{path}'", known.hint(path))
