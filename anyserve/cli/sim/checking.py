"""`--check`: the architecture's invariants over the log of a run."""

from __future__ import annotations

from anyserve.cli.finish import load_events
from anyserve.core.spec import ClusterSpec
from anyserve.telemetry.invariants import Rules, Violation, check_invariants
from anyserve.telemetry.runs import RunDirectory
from anyserve.workload.compile import Compiled


def check_run(run: RunDirectory, compiled: Compiled) -> list[Violation]:
    """Every violation that the log shows.

    Raises:
        IncompleteLogError: events are missing.
    """
    envelopes, problems = load_events(run)
    return check_invariants(envelopes, rules_of(compiled.cluster), problems=problems)


def rules_of(cluster: ClusterSpec) -> Rules:
    """What a run of this cluster is held to."""
    return Rules(
        delegation_limit=cluster.delegation.limit,
        ladder=cluster.ladder.upgrades,
        queue_limits={one.name: one.queue_limit for one in cluster.capabilities},
    )
