"""Offering, and every way a request can end other than by its stream."""

from __future__ import annotations

import pytest
from benches import OriginBench
from builders import Effects, deadline, end

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.effects import OutcomeKind
from anyserve.core.inputs import Cancelled
from anyserve.core.messages import Code
from anyserve.core.order import MS


def outcome(effects: Effects) -> fx.Outcome:
    (finish,) = effects.of(fx.Finish)
    return finish.outcome


def test_ids_name_origin_life_and_number() -> None:
    bench = OriginBench()

    assert [bench.origin.next_id() for _ in range(2)] == ["p/1/1", "p/1/2"]


def test_an_offered_request_is_submitted_to_the_scheduler() -> None:
    bench = OriginBench(epoch=4)

    effects = bench.offer(priority=2, deadline=deadline(9_000), attributes={"model": "a"})

    submit = effects.one(msg.Submit)
    assert effects.receivers(msg.Submit) == [(fx.Inbox.SCHEDULER, "")]
    assert (submit.epoch, submit.submission, submit.resent) == (4, 1, False)
    assert submit.request.first_epoch == 4
    event = effects.event(ev.RequestOffered)
    assert (event.id, event.entry, event.intended_ns) == ("p/1/1", "scheduler", bench.now)
    assert (event.priority, event.deadline_ns) == (2, 9_000 * MS)
    assert effects.event(ev.RequestSubmitted).submission == 1
    assert bench.origin.pending_ids() == ["p/1/1"]


def test_a_request_may_enter_at_a_replica() -> None:
    bench = OriginBench()

    effects = bench.offer(entry="r1")

    entry = effects.one(msg.Entry)
    assert effects.receivers(msg.Entry) == [(fx.Inbox.REPLICA_ENTRY, "r1")]
    assert (entry.attempt, entry.epoch, entry.incarnation) == (1, 0, None)
    assert effects.sent(msg.Submit) == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.QUEUE_FULL, OutcomeKind.REJECTED),
        (Code.UNKNOWN_CAPABILITY, OutcomeKind.REJECTED),
        (Code.DELEGATION_EXHAUSTED, OutcomeKind.REJECTED),
        (Code.DEADLINE_EXCEEDED, OutcomeKind.EXPIRED),
        (Code.STALE, OutcomeKind.EXPIRED),
        (Code.ORIGIN_LOST, OutcomeKind.CANCELLED),
        (Code.CLIENT_CANCELLED, OutcomeKind.CANCELLED),
        (Code.POISONED, OutcomeKind.FAILED),
        (Code.REPLICA_LOST, OutcomeKind.FAILED),
    ],
)
def test_the_code_of_a_rejection_decides_what_it_is_called(code: Code, kind: OutcomeKind) -> None:
    bench = OriginBench()
    bench.offer()

    effects = bench.tell(
        msg.Rejected(id="p/1/1", submission=1, code=code, detail="why", retry_after_ms=7)
    )

    ended = outcome(effects)
    assert (ended.kind, ended.code, ended.message) == (kind, code, "why")
    event = effects.event(ev.RequestOutcome)
    assert (event.outcome, event.code, event.retry_after_ms) == (kind.value, code.value, 7)


def test_the_first_terminal_report_wins() -> None:
    bench = OriginBench()
    bench.offer()
    rejected = msg.Rejected(id="p/1/1", submission=1, code=Code.QUEUE_FULL)
    bench.tell(rejected)

    assert len(bench.tell(rejected)) == 0
    assert bench.frame(0, 7, end=end(1)).of(fx.Finish) == []
    assert bench.cancel().of(fx.Finish) == []
    assert len(bench.lost()) == 0


def test_a_rejection_of_an_earlier_submission_is_ignored() -> None:
    bench = OriginBench()
    bench.offer()
    bench.lost()

    stale = msg.Rejected(id="p/1/1", submission=1, code=Code.QUEUE_FULL)

    assert len(bench.tell(stale)) == 0


def test_cancelling_tells_the_scheduler_and_every_replica_that_has_it() -> None:
    bench = OriginBench()
    bench.offer(entry="r1")
    bench.frame(0, 7, replica="r2")

    effects = bench.cancel()

    assert effects.receivers(msg.Cancel) == [
        (fx.Inbox.SCHEDULER, ""),
        (fx.Inbox.REPLICA_ENTRY, "r1"),
        (fx.Inbox.REPLICA_ENTRY, "r2"),
    ]
    assert effects.receivers(msg.Settled) == effects.receivers(msg.Cancel)
    ended = outcome(effects)
    assert (ended.kind, ended.code, ended.n_tokens) == (
        OutcomeKind.CANCELLED,
        Code.CLIENT_CANCELLED,
        1,
    )
    assert len(bench.cancel()) == 0


def test_a_run_that_is_stopped_cancels_with_its_own_code() -> None:
    bench = OriginBench()
    bench.offer()

    effects = bench.tell(Cancelled(id="p/1/1", code=Code.SHUTDOWN))

    assert outcome(effects).code is Code.SHUTDOWN
    assert effects.one(msg.Cancel).code is Code.SHUTDOWN


def test_the_deadline_is_the_origin_s_to_keep() -> None:
    bench = OriginBench()
    bench.offer(deadline=deadline(1_500))
    assert bench.wake(499).of(fx.Finish) == []

    effects = bench.wake(1)

    ended = outcome(effects)
    assert (ended.kind, ended.code) == (OutcomeKind.EXPIRED, Code.DEADLINE_EXCEEDED)
    assert effects.one(msg.Cancel).code is Code.DEADLINE_EXCEEDED


def test_a_deadline_of_another_host_counts_from_what_was_left() -> None:
    bench = OriginBench()

    effects = bench.offer(deadline=deadline(99_000, now_ms=98_700, boot="elsewhere"))

    assert effects.event(ev.RequestOffered).deadline_ns == bench.now + 300 * MS
    assert outcome(bench.wake(300)).kind is OutcomeKind.EXPIRED


def test_nothing_outlives_its_lifetime() -> None:
    bench = OriginBench()
    bench.offer(lifetime_ms=1_000)
    assert bench.wake(999).of(fx.Finish) == []

    ended = outcome(bench.wake(1))

    assert (ended.kind, ended.code) == (OutcomeKind.EXPIRED, Code.STALE)


def test_a_stream_that_flows_meets_its_deadline_all_the_same() -> None:
    bench = OriginBench()
    bench.offer(deadline=deadline(1_500))
    bench.frame(0, 7)

    ended = outcome(bench.wake(500))

    assert (ended.kind, ended.n_tokens) == (OutcomeKind.EXPIRED, 1)


def test_the_watermark_says_which_requests_are_all_over() -> None:
    bench = OriginBench()
    for _ in range(3):
        bench.offer()

    below = [bench.cancel(number).sent(msg.Settled)[0].settled_below for number in (2, 3, 1)]

    assert below == [1, 1, 4]


def test_the_timer_names_the_next_thing_due() -> None:
    bench = OriginBench()

    assert bench.offer().of(fx.SetTimer) == [fx.SetTimer(bench.now + 2_000 * MS)]
    assert bench.offer(deadline=deadline(1_100)).of(fx.SetTimer) == [fx.SetTimer(1_100 * MS)]
    assert bench.offer().of(fx.SetTimer) == [], "an earlier one stands already"


def test_a_client_whose_own_time_is_up_makes_its_request_expire() -> None:
    bench = OriginBench()
    bench.offer()

    effects = bench.tell(Cancelled(id="p/1/1", code=Code.DEADLINE_EXCEEDED))

    assert (outcome(effects).kind, outcome(effects).code) == (
        OutcomeKind.EXPIRED,
        Code.DEADLINE_EXCEEDED,
    )
    assert effects.one(msg.Cancel).code is Code.DEADLINE_EXCEEDED
