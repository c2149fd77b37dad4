"""Lives of the scheduler: its journal, a journal that is gone, what replicas tell a new life."""

from __future__ import annotations

import msgspec
import pytest
from benches import Peer, SchedulerBench
from builders import cluster, offer

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.effects import JournalRecord
from anyserve.core.messages import DelegateReason


def held(
    number: int, attempt: int, *, submission: int = 1, started: bool = True, entered: bool = False
) -> msg.Held:
    return msg.Held(
        id=f"p/1/{number}",
        attempt=attempt,
        submission=submission,
        started=started,
        entered=entered,
    )


def delegated(bench: SchedulerBench, number: int = 1) -> tuple[Peer, msg.Delegate, msg.Assign]:
    """Request `number` entered at s1, was delegated, and is assigned to h1."""
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    bench.peer("h1", offer("decode.heavy"))
    back = s1.delegation(msg.Entry(request=bench.request(number)), DelegateReason.TOO_LONG)
    return s1, back, bench.tell(back).one(msg.Assign)


def test_the_first_life_is_epoch_one_and_is_announced_after_it_is_written_down() -> None:
    started = SchedulerBench(cluster(), fresh=True).started

    assert isinstance(started[0], fx.Persist)
    assert started.persisted == [JournalRecord(kind="epoch", epoch=1)]
    state = started.one(msg.SchedulerState)
    assert started.receivers(msg.SchedulerState) == [(fx.Inbox.SCHEDULER_STATE, "")]
    assert (state.epoch, state.delegation_limit) == (1, 1)
    assert state.capabilities == ["decode", "decode.heavy", "decode.huge"]
    assert state.ladder == {"decode": "decode.heavy", "decode.heavy": "decode.huge"}
    event = started.event(ev.SchedulerStarted)
    assert (event.epoch, event.replayed) == (1, -1)


def test_every_life_takes_a_higher_epoch() -> None:
    first = SchedulerBench()
    second = SchedulerBench(journal=first.journal)

    assert second.scheduler.epoch == 2
    assert second.started.event(ev.SchedulerStarted).replayed == 1


def test_the_retained_epoch_counts_where_the_journal_is_gone() -> None:
    bench = SchedulerBench(seen_epoch=7)

    assert bench.scheduler.epoch == 8
    assert bench.started.event(ev.SchedulerStarted).replayed == -1


def test_attempts_of_a_later_life_sort_after_all_earlier_ones() -> None:
    first = SchedulerBench()
    first.peer("r1")
    attempt = first.assigned(1).attempt
    second = SchedulerBench(journal=first.journal)
    second.peer("r1")

    assert second.assigned(2).attempt > attempt


def test_a_restart_does_not_give_a_second_delegation() -> None:
    first = SchedulerBench()
    _, _, assign = delegated(first)
    second = SchedulerBench(journal=first.journal)
    h1 = second.peer("h1", offer("decode.heavy"), concurrency=2)
    second.peer("huge", offer("decode.huge"))

    again = second.tell(
        msg.Submit(
            request=second.request(1, first_epoch=1),
            epoch=2,
            submission=2,
            last_attempt=assign.attempt,
        )
    ).one(msg.Assign)
    effects = h1.delegate(again, DelegateReason.TOO_LONG, "decode.huge")

    assert (again.request.capability, again.delegations) == ("decode.heavy", 1)
    assert effects.one(msg.Rejected).code is msg.Code.DELEGATION_EXHAUSTED


def test_a_delegation_that_an_earlier_life_counted_is_not_counted_again() -> None:
    first = SchedulerBench()
    _, back, _ = delegated(first)
    second = SchedulerBench(journal=first.journal)
    second.peer("s1", offer("decode", max_tokens=6))
    second.peer("h1", offer("decode.heavy"))

    effects = second.tell(back)

    assert effects.one(msg.Assign).delegations == 1
    assert effects.sent(msg.Rejected) == []
    assert effects.event(ev.RequestDelegated).count == 1


def test_a_recovery_that_an_earlier_life_counted_is_not_counted_again() -> None:
    """Also where the attempt before it is heard of first: its replica says again how it ended."""
    rules = cluster(recovery_limit=1)
    first = SchedulerBench(rules)
    _, back, assign = delegated(first)
    submit = msg.Submit(
        request=first.request(1), epoch=1, submission=2, last_attempt=assign.attempt
    )
    first.tell(submit)
    second = SchedulerBench(rules, journal=first.journal)
    second.peer("s1", offer("decode", max_tokens=6))
    second.peer("h1", offer("decode.heavy"))
    second.tell(back)

    effects = second.tell(msgspec.structs.replace(submit, epoch=2))

    assert effects.sent(msg.Rejected) == []
    assert second.scheduler.tickets["p/1/1"].recoveries == 1


def test_settled_requests_leave_the_journal() -> None:
    first = SchedulerBench()
    delegated(first)
    first.settle(1)

    assert [record.kind for record in first.journal] == ["epoch", "counters", "settled"]
    assert first.scheduler.journal() == [JournalRecord(kind="epoch", epoch=1)]


def test_what_was_settled_before_a_restart_has_no_counters_after_it() -> None:
    first = SchedulerBench()
    delegated(first)
    first.settle(1)

    second = SchedulerBench(journal=first.journal)

    assert [record.kind for record in second.scheduler.journal()] == ["epoch", "epoch"]


def test_the_compacted_journal_says_the_same_as_the_long_one() -> None:
    first = SchedulerBench()
    delegated(first)
    second = SchedulerBench(journal=first.journal)

    short = second.scheduler.journal()

    assert [(record.kind, record.epoch) for record in short] == [
        ("epoch", 1),
        ("epoch", 2),
        ("counters", 0),
    ]
    by_long, by_short = SchedulerBench(journal=second.journal), SchedulerBench(journal=short)
    assert by_long.scheduler.epoch == by_short.scheduler.epoch == 3
    assert by_long.scheduler.journal() == by_short.scheduler.journal()


def test_without_a_journal_what_was_offered_before_may_not_delegate_again() -> None:
    bench = SchedulerBench(seen_epoch=3)
    s1 = bench.peer("s1", offer("decode"), concurrency=4)
    bench.peer("h1", offer("decode.heavy"))
    old, new = bench.assigned(1, first_epoch=3), bench.assigned(2, first_epoch=4)

    assert (old.delegations, new.delegations) == (1, 0)
    rejected = s1.delegate(old, DelegateReason.TOO_LONG, "decode.heavy").one(msg.Rejected)
    assert rejected.code is msg.Code.DELEGATION_EXHAUSTED
    assert len(s1.delegate(new, DelegateReason.TOO_LONG, "decode.heavy").sent(msg.Assign)) == 1


def test_a_journal_that_is_gone_stays_gone_for_later_lives() -> None:
    first = SchedulerBench(seen_epoch=3)
    second = SchedulerBench(journal=first.journal)
    second.peer("r1")

    assert second.assigned(1, first_epoch=2).delegations == 1


# --- what replicas say to a new life -------------------------------------------------------------


def test_a_credit_of_another_epoch_is_answered_and_not_used() -> None:
    bench = SchedulerBench(seen_epoch=4)
    peer = bench.peer("r1", credit=False)
    bench.submit(1)

    effects = peer.credit(epoch=4)

    assert effects.one(msg.StaleEpoch).epoch == 5
    assert effects.receivers(msg.StaleEpoch) == [(fx.Inbox.REPLICA, "r1")]
    assert effects.sent(msg.Assign) == []


def test_a_new_life_takes_over_how_much_of_the_grants_was_used() -> None:
    bench = SchedulerBench(seen_epoch=1)
    peer = bench.peer("r1", concurrency=3, credit=False)
    peer.assigned = 2

    peer.credit()

    view = bench.scheduler.replicas["r1"]
    assert (view.credit, view.in_use) == (1, 2)


def test_held_attempts_are_tracked_so_that_their_loss_is_noticed() -> None:
    bench = SchedulerBench(seen_epoch=1)
    peer = bench.peer("r1", concurrency=3, credit=False)
    peer.holding(held(1, 1001), held(2, 1, entered=True))
    assert [bench.state_of(number) for number in (1, 2)] == ["started", "entered"]

    lost = peer.gone().sent(msg.AttemptLost)

    assert [(one.id, one.attempt, one.started) for one in lost] == [
        ("p/1/1", 1001, True),
        ("p/1/2", 1, True),
    ]


def test_a_submit_of_what_is_already_held_is_not_served_twice() -> None:
    bench = SchedulerBench(seen_epoch=1)
    peer = bench.peer("r1", concurrency=3)
    peer.holding(held(1, 1001))

    assert bench.submit(1, first_epoch=1).sent(msg.Assign) == []


def test_a_request_that_waits_here_and_is_held_there_leaves_the_queue() -> None:
    bench = SchedulerBench(seen_epoch=1)
    peer = bench.peer("r1", concurrency=3, credit=False)
    bench.submit(1, first_epoch=1)

    effects = peer.holding(held(1, 1001))

    assert effects.sent(msg.CancelAttempt) == []
    assert bench.state_of(1) == "started"
    assert bench.scheduler.depth("decode") == 0


def test_held_attempts_that_are_no_longer_wanted_are_stopped() -> None:
    bench = SchedulerBench(seen_epoch=1)
    peer = bench.peer("r1", concurrency=8, credit=False)
    other = bench.peer("r2", concurrency=8)
    bench.settle(1)
    bench.tell(msg.Cancel(id="p/1/2"))
    elsewhere = bench.assigned(3, first_epoch=1)
    del other

    effects = peer.holding(held(1, 1001), held(2, 1002), held(3, 1003, started=False))

    stopped = [(stop.id, stop.attempt) for stop in effects.sent(msg.CancelAttempt)]
    assert stopped == [("p/1/1", 1001), ("p/1/2", 1002), ("p/1/3", 1003)]
    assert elsewhere.attempt == 2001


@pytest.mark.parametrize("began", [False, True])
def test_an_attempt_that_ran_before_the_restart_goes_on_and_the_new_one_is_stopped(
    began: bool,
) -> None:
    """The client may have its tokens already; a queue behind the restart knew nothing of it."""
    bench = SchedulerBench(seen_epoch=1)
    peer = bench.peer("r1", concurrency=8, credit=False)
    other = bench.peer("r2", concurrency=8)
    second = bench.assigned(1, first_epoch=1)
    if began:
        other.started(second)

    effects = peer.holding(held(1, 1001))

    stop = effects.one(msg.CancelAttempt)
    assert effects.receivers(msg.CancelAttempt) == [(fx.Inbox.REPLICA, "r2")]
    assert (stop.id, stop.attempt, stop.ordinal) == ("p/1/1", 2001, None if began else 1)
    ticket = bench.scheduler.tickets["p/1/1"]
    assert (ticket.state.value, ticket.attempt, ticket.replica) == ("started", 1001, "r1")


def test_a_held_attempt_of_an_older_submission_is_stopped() -> None:
    bench = SchedulerBench(seen_epoch=1)
    peer = bench.peer("r1", concurrency=8, credit=False)
    bench.tell(
        msg.Submit(
            request=bench.request(1, first_epoch=1), epoch=2, submission=2, last_attempt=1001
        )
    )

    assert len(peer.holding(held(1, 1001, submission=1)).sent(msg.CancelAttempt)) == 1


def test_what_a_replica_no_longer_holds_has_ended_unheard() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", concurrency=2)
    gone, kept = bench.assigned(1), bench.assigned(2)
    peer.started(gone)
    peer.started(kept)

    peer.holding(held(2, kept.attempt))

    assert [bench.state_of(number) for number in (1, 2)] == ["ended", "started"]


def test_an_assignment_on_its_way_is_not_ended_by_a_holding_that_lacks_it() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1")
    bench.assigned(1)

    peer.holding()

    assert bench.state_of(1) == "assigned"


def test_a_holding_of_another_life_or_epoch_is_ignored() -> None:
    bench = SchedulerBench(seen_epoch=1)
    peer = bench.peer("r1", credit=False)

    for stale in (
        msg.Holding(replica="r1", incarnation=9, epoch=2, held=[held(1, 1001)]),
        msg.Holding(replica="r1", incarnation=1, epoch=1, held=[held(1, 1001)]),
        msg.Holding(replica="r9", incarnation=1, epoch=2, held=[held(1, 1001)]),
    ):
        assert len(bench.tell(stale)) == 0
    assert bench.scheduler.tickets == {}
    assert peer.holding(held(1, 1001)).sent(msg.CancelAttempt) == []
    assert list(bench.scheduler.tickets) == ["p/1/1"]


def test_what_entered_is_tracked_as_soon_as_it_is_admitted() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1")
    peer.admitted(msg.Entry(request=bench.request(1)))

    assert bench.state_of(1) == "entered"
    assert peer.gone().one(msg.AttemptLost).id == "p/1/1"


def test_an_admission_from_nobody_known_is_ignored() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1")
    peer.registration = msgspec.structs.replace(peer.registration, incarnation=2)

    peer.admitted(msg.Entry(request=bench.request(1)))

    assert bench.scheduler.tickets == {}


def test_a_tracked_request_that_is_handed_back_is_routed_with_all_it_is() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1", credit=False)
    bench.peer("r2", offer(model="a"))
    entry = msg.Entry(request=bench.request(1, attributes={"model": "a"}))
    r1.admitted(entry)

    assign = r1.give_back(entry).one(msg.Assign)

    assert assign.request == entry.request


def test_a_tracked_request_that_is_lost_is_recovered_from_its_origin() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1", credit=False)
    bench.peer("r2")
    entry = msg.Entry(request=bench.request(1))
    r1.admitted(entry)
    r1.gone()

    assign = bench.tell(
        msg.Submit(request=entry.request, epoch=1, submission=2, last_attempt=1)
    ).one(msg.Assign)

    assert (assign.request, assign.submission) == (entry.request, 2)
