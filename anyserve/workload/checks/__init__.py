"""The second pass: does what the file says fit together? Each check yields what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from anyserve.workload.checks import cluster, faults, references, traffic
from anyserve.workload.checks.names import Names
from anyserve.workload.problems import Finding
from anyserve.workload.schema import ScenarioFile
from anyserve.workload.yaml_nodes import Loc

Check = Callable[[ScenarioFile, Names], Iterator[Finding]]

LOCAL: Final[tuple[Check, ...]] = (
    cluster.ladder_is_acyclic,
    cluster.replica_ids_are_distinct,
    cluster.engines_are_complete,
    cluster.apps_are_whole,
    cluster.slots_fit_the_engine,
    cluster.limits_fit_the_engine,
    cluster.gpus_can_be_given,
    cluster.policy_exists,
    cluster.profiles_exist,
    cluster.broker_url_is_clean,
    cluster.liveness_is_ordered,
    references.capabilities_exist,
    references.entries_exist,
    references.rates_name_streams,
    references.expectations_name_metrics,
    traffic.lengths_are_ordered,
    traffic.prefixes_fit,
    faults.faults_are_whole,
    faults.fault_targets_exist,
)
"""True or false of each part by itself, so they hold for what is left of a broken file too."""

WHOLE: Final[tuple[Check, ...]] = (
    cluster.overload_is_defined,
    traffic.arrivals_are_whole,
    traffic.something_is_sent,
    traffic.every_stream_is_served,
    traffic.tasks_agree,
    faults.faults_do_something,
    faults.faults_come_in_time,
)
"""They speak of what is absent, so they need the whole file."""


def cross_check(file: ScenarioFile, raw: Any, *, whole: bool) -> list[Finding]:
    """All findings of the second pass. `raw` is the plain data that `file` was made of."""
    names = Names.of(file, raw)
    checks = (*LOCAL, *WHOLE) if whole else LOCAL
    findings = [finding for check in checks for finding in check(file, names)]
    return [finding for finding in findings if _leads_somewhere(raw, finding.loc)]


def _leads_somewhere(raw: Any, loc: Loc) -> bool:
    """Whether the file has the part that holds `loc`: what only stands in for it is no finding."""
    for part in loc[:3]:
        if isinstance(raw, dict):
            inside: dict[Any, Any] = raw
        else:
            inside = dict(enumerate(raw)) if isinstance(raw, list) else {}
        if part not in inside:
            return False
        raw = inside[part]
    return True
