"""`anyserve sim --from-run RUN`: a recorded run's scenario and arrivals, under changed settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from anyserve.cli.run_events import load_events
from anyserve.cli.session import Session
from anyserve.cli.sim.options import SimOptions
from anyserve.cli.sim.prepare import PreparedSim, compile_sim
from anyserve.cli.sim.run_speed import speed_of_run
from anyserve.core.events import AnyEvent, Envelope, RequestOffered, RequestOutcome, RunStarted
from anyserve.errors import UsageError
from anyserve.telemetry.runs import RunDirectory, open_run
from anyserve.workload.checks.names import Names
from anyserve.workload.compile import Compiled
from anyserve.workload.drawing import stable_hash
from anyserve.workload.expectations import parse_expectation
from anyserve.workload.load import parse_scenario
from anyserve.workload.overrides import NOTHING_EXPECTED
from anyserve.workload.traffic import SCHEDULER_ENTRY, PlannedRequest, Segment, TrafficPlan

_MS: Final = 1_000_000
_PLAN: Final = "plan.json"
_REAL: Final = "vllm"


class _Recorded(msgspec.Struct, frozen=True):
    file: str = ""
    seed: int = 0
    scenario: dict[str, Any] = {}
    machine: dict[str, Any] = {}

    @property
    def real(self) -> bool:
        """Whether engines of it computed."""
        return _REAL in self.machine.get("engines", ())


def prepare_from_run(session: Session, options: SimOptions, name: str) -> PreparedSim:
    """The simulation of a recorded run, with `--set` and the other options put over it.

    Raises:
        UsageError: there is no such run, or it lacks what is needed.
        ScenarioInvalid: its scenario is not valid with these changes.
    """
    run = open_run(options.runs, name)
    recorded = _read(run)
    again = _Again(run, recorded)
    at_home = run.path.parent.absolute() == options.runs.absolute()
    options = dataclasses.replace(
        options,
        scenario=Path(recorded.file),
        seed=options.seed or recorded.seed,
        from_run=run.id if at_home else str(run.path),
    )
    outdated = again.outdated(options)
    for text in outdated:
        session.diagnostics.say(f"not expected, for what it names is not there now: {text}")
    expecting = again.expecting_without(outdated)
    prepared = again.prepare(options, expecting)
    matches = recorded.real if options.match_speed is None else options.match_speed
    if not matches:
        return prepared
    as_it_was = dataclasses.replace(
        options, overrides=_of_the_model(options.overrides), duration=None, entry=None
    )
    speed = speed_of_run(
        session, again.envelopes, lambda changes: again.prepare(as_it_was, changes)
    )
    as_fast = speed.as_overrides(prepared.compiled.cluster)
    prepared = again.prepare(options, (*expecting, *as_fast))
    return dataclasses.replace(prepared, speed=speed.said())


def _of_the_model(overrides: Iterable[str]) -> tuple[str, ...]:
    """Those that change how a simulation sees the world, and not what was run in it."""
    return tuple(one for one in overrides if one.lstrip().startswith("sim."))


class _Again:
    """A recorded run, to be prepared under one setting or another."""

    def __init__(self, run: RunDirectory, recorded: _Recorded) -> None:
        self.envelopes, _ = load_events(run)
        self._file = str(run.scenario)
        self._text = yaml.safe_dump(recorded.scenario, sort_keys=False)
        self._expected: tuple[str, ...] = tuple(recorded.scenario.get("expect", ()))
        # Its file may be gone or changed: the text is the run's own, the place is for users'
        # classes.
        self._place = Path(recorded.file)
        self._planned = _planned(run)

    def prepare(self, options: SimOptions, first: tuple[str, ...] = ()) -> PreparedSim:
        """Its simulation with these options; `first` is set before what they set."""
        overrides = (*first, *options.overrides)
        scenario = parse_scenario(self._text, file=self._file, overrides=overrides)
        scenario = dataclasses.replace(scenario, path=self._place)
        prepared = compile_sim(options, scenario)
        plan = plan_of(self.envelopes, prepared.compiled, self._planned)
        compiled = dataclasses.replace(prepared.compiled, plan=plan)
        return dataclasses.replace(prepared, compiled=compiled)

    def outdated(self, options: SimOptions) -> list[str]:
        """What the run expected of replicas that are not there with these options."""
        told = any(one.lstrip().startswith("expect") for one in options.overrides)
        if told or not options.overrides or not self._expected:
            return []
        bare = (*options.overrides, NOTHING_EXPECTED)
        scenario = parse_scenario(self._text, file=self._file, overrides=bare)
        known = Names.of(scenario.file, scenario.document.data).metrics
        parsed = ((text, parse_expectation(text)) for text in self._expected)
        return [text for text, one in parsed if one is not None and known.lacking(one)]

    def expecting_without(self, outdated: Sequence[str]) -> tuple[str, ...]:
        """The overrides that leave these out of what the run expected."""
        kept = [text for text in self._expected if text not in outdated]
        return (f"expect={json.dumps(kept)}",) if outdated else ()


def plan_of(
    envelopes: Iterable[Envelope], compiled: Compiled, planned: Sequence[PlannedRequest] = ()
) -> TrafficPlan:
    """The requests that were offered in a run, at the times and with the lengths that they had.

    Answers that ended early keep the length that they had. `planned` is the run's plan, which knows
    the texts that prompts share. A request that entered where nobody is now enters at the
    scheduler.

    Raises:
        UsageError: nothing was offered.
    """
    events = [envelope.event for envelope in envelopes]
    started_ns = _start_of(envelopes)
    made = _made(events)
    offers = sorted(
        (event for event in events if isinstance(event, RequestOffered)),
        key=lambda event: event.intended_ns,
    )
    if not offers:
        raise UsageError("no request was offered in this run", code="no_events")
    entries = {SCHEDULER_ENTRY, *(replica.id for replica in compiled.cluster.replicas)}
    requests = tuple(
        msgspec.structs.replace(
            _request(offer, started_ns, entries),
            n=n,
            max_tokens=made.get(offer.id, offer.max_tokens),
            segments=_texts(offer, planned),
        )
        for n, offer in enumerate(offers)
    )
    return TrafficPlan(compiled.seed, compiled.plan.phases, requests)


def _request(offer: RequestOffered, started_ns: int, entries: set[str]) -> PlannedRequest:
    deadline_ms = None
    if offer.deadline_ns is not None:
        deadline_ms = max(1, (offer.deadline_ns - offer.intended_ns) // _MS)
    return PlannedRequest(
        n=0,
        at_ns=max(0, offer.intended_ns - started_ns),
        stream=offer.stream,
        phase=offer.phase,
        capability=offer.capability,
        segments=(),
        max_tokens=offer.max_tokens,
        entry=offer.entry if offer.entry in entries else SCHEDULER_ENTRY,
        attributes=offer.attributes,
        priority=offer.priority,
        deadline_ms=deadline_ms,
    )


def _texts(offer: RequestOffered, planned: Sequence[PlannedRequest]) -> tuple[Segment, ...]:
    """The parts of its prompt: as planned, where the plan has it, else one that nobody shares."""
    number = offer.id.rpartition("/")[2]
    place = int(number) - 1 if number.isdecimal() else -1
    if 0 <= place < len(planned):
        known = planned[place]
        if known.prompt_tokens == offer.prompt_tokens and known.stream == offer.stream:
            return known.segments
    return ((stable_hash(0, "recorded", offer.id), offer.prompt_tokens),)


def _made(events: Iterable[AnyEvent]) -> dict[str, int]:
    """Tokens of the answers that were completed."""
    return {
        event.id: event.n_tokens
        for event in events
        if isinstance(event, RequestOutcome) and event.outcome == "completed" and event.n_tokens
    }


def _start_of(envelopes: Iterable[Envelope]) -> int:
    for envelope in envelopes:
        if isinstance(envelope.event, RunStarted):
            return envelope.t
    raise UsageError("this run never began its traffic", code="no_events")


def _read(run: RunDirectory) -> _Recorded:
    try:
        recorded = msgspec.json.decode(run.scenario.read_bytes(), type=_Recorded)
    except (OSError, msgspec.MsgspecError):
        recorded = _Recorded()
    if not recorded.scenario:
        hint = "a run directory holds scenario.resolved.json"
        raise UsageError(f"{run.id} does not say what was run", code="no_scenario", hint=hint)
    return recorded


def _planned(run: RunDirectory) -> tuple[PlannedRequest, ...]:
    """The run's plan; empty where it left none, or one in which times follow from answers."""
    try:
        plan = msgspec.json.decode((run.path / _PLAN).read_bytes(), type=TrafficPlan)
    except (OSError, msgspec.MsgspecError):
        return ()
    chained = any(request.after is not None for request in plan.requests)
    return () if chained else plan.requests
