"""Which events are worth a line for people, and how loud."""

from __future__ import annotations

from anyserve.core.events import (
    AnyEvent,
    BusTrouble,
    EpochChanged,
    FaultInjected,
    PhaseStarted,
    PolicyFailed,
    ProcessExited,
    ReplicaChanged,
    RequestDelegated,
    RequestOutcome,
    RequestReentered,
    RunEnded,
    RunStarted,
    SchedulerStarted,
    StreamThinned,
    TrafficRate,
    WorkerChanged,
)
from anyserve.telemetry.text import clean
from anyserve.telemetry.views import Level

_REPLICA_LEVELS = {"lost": Level.ERROR, "saturated": Level.WARN, "stopped": Level.WARN}
_WORKER_LEVELS = {"exited": Level.ERROR, "hung": Level.ERROR, "killed": Level.WARN}
_OUTCOME_LEVELS = {"failed": Level.ERROR, "rejected": Level.WARN, "expired": Level.WARN}


def notice(event: AnyEvent) -> tuple[Level, str] | None:
    """The level and the text of an event, or None where it is routine."""
    said = _of_request(event) or _of_cluster(event) or _of_run(event)
    return None if said is None else (said[0], clean(said[1]))


def subject(event: AnyEvent) -> str:
    """The replica or the request that the text of an event begins with; empty where none."""
    match event:
        case ReplicaChanged():
            return event.replica
        case RequestReentered() | RequestOutcome():
            return event.id
        case _:
            return ""


def _of_request(event: AnyEvent) -> tuple[Level, str] | None:
    match event:
        case RequestDelegated():
            edge = f"{event.from_capability} → {event.to_capability}"
            return Level.INFO, f"{event.replica} delegated {event.id}, {edge}: {event.reason}"
        case RequestReentered():
            why = _because(event.detail)
            where = f" from {event.replica}" if event.replica else ""
            return Level.WARN, f"{event.id} came back{where} ({event.kind}){why}"
        case RequestOutcome() if event.outcome in _OUTCOME_LEVELS:
            why = _because(event.message or event.code or "")
            return _OUTCOME_LEVELS[event.outcome], f"{event.id} {event.outcome}{why}"
        case _:
            return None


def _of_cluster(event: AnyEvent) -> tuple[Level, str] | None:  # noqa: PLR0911 - one case per event
    match event:
        case ReplicaChanged():
            level = _REPLICA_LEVELS.get(event.state, Level.INFO)
            return level, f"{event.replica} is {event.state}{_because(event.detail)}"
        case WorkerChanged():
            level = _WORKER_LEVELS.get(event.state, Level.INFO)
            return level, f"worker of {event.replica} {event.state}{_because(event.detail)}"
        case SchedulerStarted():
            journal = "no journal" if event.replayed < 0 else f"{event.replayed} records replayed"
            return Level.INFO, f"scheduler life {event.epoch}, policy {event.policy}, {journal}"
        case EpochChanged():
            return Level.INFO, f"saw scheduler life {event.epoch}"
        case PolicyFailed():
            return Level.WARN, f"policy {event.policy} failed on {event.id}{_because(event.error)}"
        case BusTrouble():
            level = Level.INFO if event.kind == "reconnected" else Level.WARN
            return level, f"bus: {event.kind}{_because(event.detail)}"
        case ProcessExited():
            again = "given up"
            if event.restart_in_s is not None:
                again = f"restarts in {event.restart_in_s:g} s"
            return Level.ERROR, f"{event.name} exited with {event.exit_code}, {again}"
        case _:
            return None


def _of_run(event: AnyEvent) -> tuple[Level, str] | None:  # noqa: PLR0911 - one case per event
    match event:
        case RunStarted():
            return Level.INFO, f"run {event.run} of {event.scenario}, seed {event.seed}"
        case PhaseStarted():
            return Level.INFO, f"phase {event.name}"
        case FaultInjected():
            line = f" (line {event.line})" if event.line is not None else ""
            return Level.WARN, f"fault: {event.action} {event.target}{line}{_because(event.detail)}"
        case RunEnded():
            return Level.INFO, f"run ended: {event.reason}"
        case TrafficRate():
            how = "is paused" if event.factor == 0 else f"goes {event.factor:g} times as planned"
            return Level.WARN, f"traffic {how}"
        case StreamThinned() if event.changed:
            told = "all requests" if event.one_in == 1 else f"one request in {event.one_in}"
            return Level.INFO, f"so much is said that {told} can be told; totals are exact"
        case _:
            return None


def _because(text: str) -> str:
    return f": {text}" if text else ""
