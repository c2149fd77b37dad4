"""What a scheduler was told, and when: recorded from a live one, and told to another one again.

A machine without I/O, clock and random source of its own decides the same for the same inputs. So a
recorded run's decisions can be made again anywhere, and must be equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from anyserve.core.effects import Effect
from anyserve.core.events import RequestDelegated, RequestRouted
from anyserve.core.inputs import BusDown, BusUp, Pressure, Wake
from anyserve.core.messages import SchedulerInbound
from anyserve.core.scheduler.machine import Scheduler, SchedulerInput

_LOCAL: Final[dict[str, type[Wake | BusUp | BusDown | Pressure]]] = {
    kind.__name__: kind for kind in (Wake, BusUp, BusDown, Pressure)
}
_START: Final = "start"


class InputRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input: the time it was handled at, and the message, or the name and fields of a local
    input. The first record is the start of the life, with its `boot` and the epoch that was seen
    before it."""

    now: int
    message: msgspec.Raw = msgspec.Raw(b"null")
    local: str = ""
    seen_epoch: int = 0
    boot: str = ""


class Decision(NamedTuple):
    """What was decided on a request: bound to a replica, or delegated to a capability."""

    id: str
    attempt: int
    target: str


def start_record(now: int, seen_epoch: int, boot: str) -> InputRecord:
    """The start of a scheduler's life."""
    return InputRecord(now, local=_START, seen_epoch=seen_epoch, boot=boot)


def record_of(now: int, message: SchedulerInput) -> InputRecord:
    """An input as it is recorded."""
    raw = msgspec.Raw(msgspec.json.encode(message))
    local = type(message).__name__
    return InputRecord(now, raw, local if local in _LOCAL else "")


def decisions_of(effects: Iterable[Effect]) -> list[Decision]:
    """The decisions among what a scheduler did."""
    return [one for effect in effects if (one := decision_of(effect)) is not None]


def decision_of(event: object) -> Decision | None:
    """The decision that an event of a log tells; None for all others."""
    if isinstance(event, RequestRouted):
        return Decision(event.id, event.attempt, event.replica)
    if isinstance(event, RequestDelegated):
        return Decision(event.id, event.attempt, event.to_capability)
    return None


def decide_again(scheduler: Scheduler, records: Iterable[InputRecord]) -> list[Decision]:
    """Tell a new scheduler, made like the recorded one, the same; what it decides, in order."""
    decoder = msgspec.json.Decoder(SchedulerInbound)
    found: list[Decision] = []
    for record in records:
        if record.local == _START:
            effects = scheduler.start(record.now, seen_epoch=record.seen_epoch)
        else:
            effects = scheduler.handle(record.now, _input(record, decoder))
        found += decisions_of(effects)
    return found


def _input(record: InputRecord, decoder: msgspec.json.Decoder[SchedulerInbound]) -> SchedulerInput:
    local = _LOCAL.get(record.local)
    if local is not None:
        return msgspec.json.decode(record.message, type=local)
    return decoder.decode(record.message)
