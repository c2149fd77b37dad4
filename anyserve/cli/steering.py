"""`anyserve control`: from words to a wish on the control socket of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anyserve.cli.attaching import find_record
from anyserve.cli.session import Session
from anyserve.errors import UsageError
from anyserve.runtime.clusters import ClusterRecord
from anyserve.runtime.node_control import ConnectionFault, Kind
from anyserve.runtime.supervisor import control
from anyserve.workload.schema import parse_duration

SCHEMA: Final = "anyserve.control/1"
_WORKER: Final = ".worker"
_KINDS: Final[tuple[Kind, ...]] = ("partition", "drop", "duplicate", "delay")


@dataclass(frozen=True, slots=True)
class Wish:
    """A verb and what was said with it. `target`: a replica, `ID.worker`, or a process's name."""

    verb: str
    target: str = ""
    factor: float = 1.0
    share: float = 0.0
    by: str | None = None
    jitter: str | None = None
    lasts: str | None = None
    down: str | None = None


def hand_over(session: Session, wish: Wish, *, cluster: str | None, as_json: bool) -> None:
    """Hand the wish to the cluster's supervisor; returns once it was taken.

    Raises:
        AnyServeError: there is no such cluster or target, or it cannot be done now.
    """
    requests = requests_of(wish)
    record = find_record(session, cluster)
    asyncio.run(_ask(record, requests))
    what = " ".join(word for word in (wish.verb, wish.target) if word)
    if as_json:
        done = {"verb": wish.verb, "target": wish.target or None}
        session.output.json({"schema": SCHEMA, "cluster": record.name, **done})
    else:
        session.diagnostics.say(f"{record.name}: {what}")


async def _ask(record: ClusterRecord, requests: Sequence[control.AnyRequest]) -> None:
    async with control.ControlClient(Path(record.control)) as client:
        for request in requests:
            await client.ask(request)


def requests_of(wish: Wish) -> list[control.AnyRequest]:
    """What the supervisor is asked for.

    Raises:
        UsageError: a time cannot be read.
    """
    if wish.verb == "mend":
        over = [ConnectionFault(kind=kind, on=False) for kind in _KINDS]
        return [control.Disturb(id=wish.target, how=how) for how in over]
    return [_REQUESTS[wish.verb](wish)]


def _on_process(wish: Wish) -> control.AnyRequest:
    name = wish.target.removesuffix(_WORKER)
    kind: control.Target = "replica" if name == wish.target else "worker"
    if wish.verb == "kill":
        return control.Kill(target=kind, id=name)
    if wish.verb == "resume":
        return control.Resume(target=kind, id=name)
    return control.Hang(target=kind, id=name, duration_s=_seconds("--for", wish.lasts))


def _on_connection(wish: Wish) -> control.AnyRequest:
    kind = next(kind for kind in _KINDS if kind == wish.verb)
    how = ConnectionFault(
        kind=kind,
        share=wish.share,
        by_s=_seconds("D", wish.by) or 0.0,
        jitter_s=_seconds("--jitter", wish.jitter) or 0.0,
    )
    return control.Disturb(id=wish.target, how=how, duration_s=_seconds("--for", wish.lasts))


def _restart(wish: Wish) -> control.AnyRequest:
    down_s = _seconds("--down", wish.down)
    if down_s is None:
        return control.Restart(name=wish.target)
    return control.Crash(name=wish.target, down_s=down_s)


_REQUESTS: Final[dict[str, Callable[[Wish], control.AnyRequest]]] = {
    "drain": lambda wish: control.Drain(id=wish.target),
    "resume": _on_process,
    "kill": _on_process,
    "hang": _on_process,
    "slow": lambda wish: control.Slow(id=wish.target, factor=wish.factor),
    "rate": lambda wish: control.Rate(factor=wish.factor),
    "restart": _restart,
    **dict.fromkeys(_KINDS, _on_connection),
}


def _seconds(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parse_duration(text) / 1e9
    except ValueError as error:
        hint = "write a duration as 250ms, 60s or 1m30s"
        raise UsageError(f"{option}: {error}", code="bad_duration", hint=hint) from None
