"""`--check`: the architecture's invariants, over the log of a run and as it ran."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from anyserve.cli.run_events import load_events
from anyserve.cli.sim.prepare import PreparedSim
from anyserve.core.events import Envelope
from anyserve.core.spec import ClusterSpec
from anyserve.sim.recorder import Enveloped, Sample
from anyserve.sim.simulation import Simulation
from anyserve.sim.watch import Watch
from anyserve.telemetry.invariants import Invariant, Rules, Violation, check_invariants
from anyserve.telemetry.runs import RunDirectory


def check_run(run: RunDirectory, prepared: PreparedSim, watch: Watch) -> list[Violation]:
    """Every violation that the log shows, that was seen on the way, or that a second run shows.

    The second run steps every engine one by one: its log must have the same bytes.

    Raises:
        IncompleteLogError: events are missing.
    """
    envelopes, problems = load_events(run)
    rules = rules_of(prepared.compiled.cluster)
    return [
        *check_invariants(envelopes, rules, problems=problems),
        *_seen(watch),
        *_repeated(envelopes, prepared),
    ]


def _seen(watch: Watch) -> Iterator[Violation]:
    for text in watch.shortcuts:
        yield Violation(Invariant.NO_SHORTCUT, "network", text)
    for text in watch.idle:
        yield Violation(Invariant.WORK_CONSERVATION, "scheduler", text)


def _repeated(envelopes: list[Envelope], prepared: PreparedSim) -> Iterator[Violation]:
    first, again = _Digest(), _Digest()
    for envelope in envelopes:
        first.add(envelope)
    options = prepared.options
    Simulation(
        prepared.compiled,
        Enveloped(again.add),
        exact=not options.exact,
        sample=Sample(options.sample),
        scenario_dir=prepared.scenario_dir,
    ).run()
    if first.value != again.value:
        text = f"a second run, of {again.count} events, differs from the first, of {first.count}"
        yield Violation(Invariant.DETERMINISM, "event log", text)


class _Digest:
    """What identifies a log: its bytes, without keeping them."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b()
        self._encode = msgspec.json.Encoder().encode
        self.count = 0

    def add(self, envelope: Envelope) -> None:
        """One more event."""
        self.count += 1
        self._hash.update(self._encode(envelope))

    @property
    def value(self) -> bytes:
        """The digest so far."""
        return self._hash.digest()


def rules_of(cluster: ClusterSpec) -> Rules:
    """What a run of this cluster is held to."""
    return Rules(
        delegation_limit=cluster.delegation.limit,
        ladder=cluster.ladder.upgrades,
        queue_limits={one.name: one.queue_limit for one in cluster.capabilities},
    )
