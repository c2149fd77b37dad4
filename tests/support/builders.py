"""Small builders for tests of core: specs, requests, frames, and `Effects` to ask questions of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.inputs import Delta
from anyserve.core.order import MS
from anyserve.core.spec import (
    CapabilitySpec,
    ClusterSpec,
    DelegationSpec,
    EngineSpec,
    LadderSpec,
    ReplicaSpec,
    SchedulerSpec,
)

M = TypeVar("M", bound=msg.Message)
E = TypeVar("E", bound=ev.Event)
F = TypeVar("F", bound=fx.Command | ev.Event)

LADDER = {"decode": "decode.heavy", "decode.heavy": "decode.huge"}


class Effects(Sequence[fx.Effect]):
    """What one input made a machine do, with questions that tests ask."""

    def __init__(self, effects: Iterable[fx.Effect]) -> None:
        self._all = list(effects)

    def __getitem__(self, index: Any) -> Any:
        return self._all[index]

    def __iter__(self) -> Iterator[fx.Effect]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def of(self, kind: type[F]) -> list[F]:
        """All effects of a kind, in order."""
        return [effect for effect in self._all if isinstance(effect, kind)]

    def sent(self, kind: type[M]) -> list[M]:
        """All messages of a kind, in order."""
        return [send.message for send in self.of(fx.Send) if isinstance(send.message, kind)]

    def receivers(self, kind: type[msg.Message]) -> list[tuple[fx.Inbox, str]]:
        """Where the messages of a kind went."""
        return [
            (send.inbox, send.to) for send in self.of(fx.Send) if isinstance(send.message, kind)
        ]

    def emitted(self, kind: type[E]) -> list[E]:
        """All events of a kind, in order."""
        return self.of(kind)

    def one(self, kind: type[M]) -> M:
        """The only message of this kind."""
        (message,) = self.sent(kind)
        return message

    @property
    def credits(self) -> list[msg.Credit]:
        """All counters that were told, alone or with an end, in order."""
        told = (one.credit if isinstance(one, msg.Ended) else one for one in self.sent(msg.Message))
        return [one for one in told if isinstance(one, msg.Credit)]

    @property
    def credit(self) -> msg.Credit:
        """The only counters that were told."""
        (credit,) = self.credits
        return credit

    def event(self, kind: type[E]) -> E:
        """The only event of this kind."""
        (event,) = self.emitted(kind)
        return event

    @property
    def persisted(self) -> list[fx.JournalRecord]:
        """What goes to the journal."""
        return [persist.record for persist in self.of(fx.Persist)]


def offer(
    capability: str = "decode", max_tokens: int | None = None, **attributes: str
) -> msg.Offer:
    """One capability of a replica."""
    return msg.Offer(
        capability=capability, attributes=attributes, limits=msg.Limits(max_tokens=max_tokens)
    )


def replica_spec(
    replica_id: str = "r1",
    *offers: msg.Offer,
    concurrency: int = 2,
    prefetch: int = 0,
    entry_queue: int = 4,
) -> ReplicaSpec:
    """A replica with an `echo` engine; without offers it offers `decode`."""
    return ReplicaSpec(
        id=replica_id,
        offers=offers or (offer(),),
        engine=EngineSpec(kind="echo"),
        concurrency=concurrency,
        prefetch=prefetch,
        entry_queue=entry_queue,
    )


def cluster(
    *,
    names: Sequence[str] = ("decode", "decode.heavy", "decode.huge"),
    upgrades: Mapping[str, str] | None = None,
    limit: int = 1,
    overload: bool = False,
    capability: Mapping[str, Any] | None = None,
    **rules: Any,
) -> ClusterSpec:
    """A cluster; `capability` are fields of every CapabilitySpec, `rules` of the SchedulerSpec."""
    return ClusterSpec(
        name="test",
        capabilities=tuple(CapabilitySpec(name=name, **(capability or {})) for name in names),
        replicas=(replica_spec(),),
        ladder=LadderSpec(upgrades=LADDER if upgrades is None else upgrades),
        delegation=DelegationSpec(limit=limit, overload=overload),
        scheduler=SchedulerSpec(**rules),
    )


def request(number: int = 1, capability: str = "decode", **fields: Any) -> msg.Request:
    """Request `number` of origin `p`, life 1: 4 tokens in, 3 out, offered at time 0."""
    values: dict[str, Any] = {
        "id": f"p/1/{number}",
        "asked": capability,
        "capability": capability,
        "prompt_tokens": 4,
        "max_tokens": 3,
        "offered_ns": 0,
    }
    return msg.Request(**(values | fields))


def deadline(at_ms: int, *, now_ms: int = 0, boot: str = "") -> msg.Deadline:
    """Due at `at_ms` on the clock of `boot`, said at `now_ms`."""
    return msg.Deadline(boot=boot, at_ns=at_ms * MS, left_ms=at_ms - now_ms)


def entry_of(request_: msg.Request, *, delegations: int = 0) -> msg.Entry:
    """How a request enters at a replica straight from its origin."""
    return msg.Entry(request=request_, delegations=delegations)


def tokens(number: int, attempt: int, *ids: int, **fields: Any) -> Delta:
    """The engine made these tokens."""
    return Delta(id=f"p/1/{number}", attempt=attempt, tokens=list(ids), **fields)


def done(number: int, attempt: int, n_tokens: int = 3, **fields: Any) -> Delta:
    """The engine made the last `n_tokens` tokens."""
    return tokens(number, attempt, *range(n_tokens), done=True, finish="length", **fields)


def frame(sequence: int, *ids: int, **fields: Any) -> msg.Frame:
    """A frame of request 1, attempt 1001 at `r1`; `start` is `sequence` unless it is named."""
    values: dict[str, Any] = {
        "id": "p/1/1",
        "attempt": 1001,
        "submission": 1,
        "replica": "r1",
        "incarnation": 1,
        "start": sequence,
    }
    return msg.Frame(sequence=sequence, tokens=list(ids), **(values | fields))


def end(
    *n_tokens: int, status: msg.AttemptStatus = msg.AttemptStatus.COMPLETED, **fields: Any
) -> msg.End:
    """The terminal part of a stream."""
    values: dict[str, Any] = {
        "status": status,
        "n_tokens": list(n_tokens),
        "finish": ["length" for _ in n_tokens],
        "times": msg.Times(received_ns=0),
    }
    return msg.End(**(values | fields))
