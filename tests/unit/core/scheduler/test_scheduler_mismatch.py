"""A replica that cannot serve a request as it is asked may still serve the rung above."""

from __future__ import annotations

from benches import SchedulerBench
from builders import offer

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.messages import Code, DelegateReason


def test_replica_that_offers_the_rung_above_may_serve_what_it_delegated() -> None:
    bench = SchedulerBench()
    h1 = bench.peer("h1", offer("decode.heavy"))

    effects = h1.delegate(msg.Entry(request=bench.request(1)), DelegateReason.NOT_REGISTERED)

    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "h1")]
    assert effects.one(msg.Assign).request.capability == "decode.heavy"
    assert effects.event(ev.RequestDelegated).count == 1


def test_replica_that_denies_what_it_registered_is_not_chosen_again() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode"))

    effects = s1.delegate(msg.Entry(request=bench.request(1)), DelegateReason.NOT_REGISTERED)

    assert effects.sent(msg.Assign) == []
    assert effects.one(msg.Rejected).code is Code.TOO_LONG
