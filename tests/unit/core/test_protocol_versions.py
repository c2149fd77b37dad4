"""Whoever speaks another version of the protocol is refused by name, and changes nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from benches import OriginBench, ReplicaBench, SchedulerBench
from builders import replica_spec

from anyserve.core import events as ev
from anyserve.core import messages as msg

FOREIGN = msg.PROTOCOL_VERSION + 1


def foreign(message: Any) -> Any:
    return msgspec.structs.replace(message, v=FOREIGN)


def state(epoch: int) -> msg.SchedulerState:
    return msg.SchedulerState(
        epoch=epoch, incarnation=1, ladder={}, capabilities=["decode"], delegation_limit=1
    )


def test_a_replica_of_another_version_is_refused_by_name() -> None:
    bench = SchedulerBench()
    registration = msg.Registration(
        replica="r1",
        incarnation=1,
        connection=1,
        revision=1,
        state=msg.ReplicaState.READY,
        offers=[msg.Offer(capability="decode")],
        concurrency=1,
    )
    told = bench.tell(foreign(registration))

    assert "replica r1 speaks version 2" in told.event(ev.BusTrouble).detail
    assert not bench.scheduler.replicas


@pytest.mark.parametrize("bench", [ReplicaBench(replica_spec()), OriginBench()])
def test_a_scheduler_of_another_version_is_not_followed(bench: ReplicaBench | OriginBench) -> None:
    told = bench.tell(foreign(state(epoch=9)))

    assert "speaks version 2" in told.event(ev.BusTrouble).detail
    assert not told.sent(msg.Holding)
    assert not told.sent(msg.Settled)


def test_the_version_before_is_understood() -> None:
    bench = OriginBench(epoch=1)
    before = msgspec.structs.replace(state(epoch=2), v=msg.PROTOCOL_VERSION - 1)

    assert bench.tell(before).event(ev.EpochChanged).epoch == 2
