"""Frames, repairs, repeated ends, keep-alives; cancelling and settling; the load it reports."""

from __future__ import annotations

import msgspec
import pytest
from benches import ReplicaBench
from builders import Effects, cluster, done, replica_spec, tokens

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.inputs import Delta, WorkerDied
from anyserve.core.messages import AttemptStatus, Code
from anyserve.core.order import MS


def running(number: int = 1, **fields: object) -> ReplicaBench:
    bench = ReplicaBench()
    bench.assign(number, **fields)  # type: ignore[arg-type]
    return bench


def settle(bench: ReplicaBench, *numbers: int, below: int = 0) -> Effects:
    return bench.tell(
        msg.Settled(
            origin="p",
            incarnation=1,
            ids=[f"p/1/{number}" for number in numbers],
            settled_below=below,
        )
    )


def repair(bench: ReplicaBench, sequence: int, number: int = 1, attempt: int = 1001) -> Effects:
    return bench.tell(msg.Repair(id=f"p/1/{number}", attempt=attempt, sequence=sequence))


def stop(bench: ReplicaBench, attempt: int = 1001, ordinal: int | None = None) -> Effects:
    return bench.tell(
        msg.CancelAttempt(id="p/1/1", attempt=attempt, incarnation=1, epoch=1, ordinal=ordinal)
    )


# --- frames --------------------------------------------------------------------------------------


def test_frames_are_numbered_and_say_where_their_tokens_stand() -> None:
    bench = running()

    frames = [
        bench.step(tokens(1, 1001, 7, 8)).one(msg.Frame),
        bench.step(tokens(1, 1001, 9)).one(msg.Frame),
    ]

    assert [(one.sequence, one.start, one.tokens) for one in frames] == [
        (0, 0, [7, 8]),
        (1, 2, [9]),
    ]
    assert (frames[0].replica, frames[0].incarnation, frames[0].submission) == ("r1", 1, 1)
    assert [one.capability for one in frames] == ["decode", *[""] * (len(frames) - 1)]


def test_the_first_frame_says_how_many_delegations_brought_the_request_here() -> None:
    bench = ReplicaBench()
    bench.tell(msgspec.structs.replace(bench.assignment(1), delegations=1))

    first = bench.step(tokens(1, 1001, 7)).one(msg.Frame)
    second = bench.step(tokens(1, 1001, 8)).one(msg.Frame)

    assert (first.capability, first.delegations) == ("decode", 1)
    assert (second.capability, second.delegations) == ("", 0)


def test_frames_go_to_the_origin_that_owns_the_request() -> None:
    bench = running(id="ingress-2/4/1")

    effects = bench.step(Delta(id="ingress-2/4/1", attempt=1001, tokens=[1]))

    assert effects.receivers(msg.Frame) == [(fx.Inbox.ORIGIN, "ingress-2")]


def test_a_resumed_attempt_counts_on_from_what_the_client_has() -> None:
    bench = ReplicaBench()
    assert bench.assign(1, resume_ids=[5, 6]).event(ev.AttemptStarted).resumed == 2

    frame = bench.step(done(1, 1001, 1)).one(msg.Frame)

    assert frame.start == 2
    assert frame.end is not None
    assert frame.end.n_tokens == [3]


def test_each_choice_counts_its_own_tokens() -> None:
    bench = running()

    frames = bench.step(
        tokens(1, 1001, 1, 2, choice=0),
        tokens(1, 1001, 3, choice=1),
        tokens(1, 1001, 4, choice=1, finish="stop"),
        tokens(1, 1001, choice=0, finish="length", done=True),
    ).sent(msg.Frame)

    assert [(one.choice, one.start) for one in frames] == [(0, 0), (1, 0), (1, 1), (0, 2)]
    assert frames[-1].end is not None
    assert (frames[-1].end.n_tokens, frames[-1].end.finish) == ([2, 2], ["length", "stop"])


def test_data_without_tokens_is_a_frame_too() -> None:
    bench = running()
    vector = msgspec.Raw(b"[0.5]")

    frame = bench.step(Delta(id="p/1/1", attempt=1001, data=vector, done=True)).one(msg.Frame)

    assert frame.data == vector
    assert frame.end is not None


def test_a_step_without_tokens_sends_nothing() -> None:
    bench = running()

    assert bench.step(tokens(1, 1001)).of(fx.Send) == []


def test_the_first_token_is_an_event_once() -> None:
    bench = running()

    assert bench.step(tokens(1, 1001, 1)).event(ev.AttemptFirstToken).attempt == 1001
    assert bench.step(tokens(1, 1001, 2)).emitted(ev.AttemptFirstToken) == []


def test_the_times_of_an_attempt_add_up_to_its_stay() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1, prefetch=1))
    bench.assign(1)
    received = bench.now
    bench.assign(2)
    bench.later(10)
    bench.finish(1)
    begun = bench.now
    bench.later(20)
    bench.step(tokens(2, 1001, 1, scheduled_ns=begun + 5 * MS))
    bench.later(40)

    event = bench.finish(2).event(ev.AttemptEnded)

    assert event.times == msg.Times(
        received_ns=received,
        queue_ns=10 * MS,
        engine_wait_ns=5 * MS,
        prefill_ns=15 * MS,
        decode_ns=40 * MS,
    )
    assert (event.status, event.n_tokens) == ("completed", 4)


def test_the_engine_s_clock_cannot_make_a_part_negative() -> None:
    bench = running()
    bench.later(10)
    bench.step(tokens(1, 1001, 1, scheduled_ns=1))
    bench.step(tokens(1, 1001, 1, scheduled_ns=bench.now + 99 * MS))

    times = bench.finish(1).event(ev.AttemptEnded).times

    assert (times.engine_wait_ns, times.prefill_ns, times.decode_ns) == (0, 10 * MS, 0)


def test_an_engine_error_fails_that_attempt_alone() -> None:
    bench = ReplicaBench()
    bench.assign(1)
    bench.assign(2)

    effects = bench.step(
        Delta(id="p/1/1", attempt=1001, error="out of blocks", cached_tokens=2),
        tokens(2, 1001, 5),
    )

    failed, fine = effects.sent(msg.Frame)
    assert failed.end is not None
    assert (failed.end.status, failed.end.code) == (AttemptStatus.FAILED, Code.ENGINE_ERROR)
    assert (failed.end.message, failed.end.cached_tokens) == ("out of blocks", 2)
    assert fine.end is None
    assert effects.event(ev.AttemptEnded).code == "engine_error"
    assert bench.replica.running == 1


def test_a_delta_of_an_unknown_attempt_is_dropped() -> None:
    bench = running()

    assert bench.step(tokens(9, 1001, 1), tokens(1, 1002, 1)).of(fx.Send) == []


# --- repair, repetition, signs of life ------------------------------------------------------------


def test_a_repair_sends_all_frames_from_the_gap_on() -> None:
    bench = running()
    sent = [bench.step(tokens(1, 1001, n)).one(msg.Frame) for n in range(3)]

    assert repair(bench, 1).sent(msg.Frame) == sent[1:]


def test_a_repair_with_nothing_missing_is_answered_by_a_sign_of_life() -> None:
    bench = running()
    bench.step(tokens(1, 1001, 1))

    effects = repair(bench, 1)

    assert effects.one(msg.KeepAlive).held == [("p/1/1", 1001)]
    assert effects.receivers(msg.KeepAlive) == [(fx.Inbox.ORIGIN, "p")]


def test_a_repair_of_what_was_handed_back_says_so_again() -> None:
    bench = ReplicaBench()
    back = bench.enter(1, "decode.heavy").one(msg.Delegate)

    assert repair(bench, 0, attempt=1).sent(msg.Delegate) == [back]


def test_a_repair_of_what_died_with_its_worker_says_so_again() -> None:
    bench = running()
    lost = bench.tell(WorkerDied(reason="x")).one(msg.AttemptLost)

    assert repair(bench, 0).sent(msg.AttemptLost) == [lost]


def test_a_repair_of_an_unknown_attempt_is_answered_as_such() -> None:
    bench = running()

    effects = repair(bench, 0, attempt=1002)

    assert effects.one(msg.UnknownAttempt) == msg.UnknownAttempt(
        id="p/1/1", attempt=1002, replica="r1"
    )
    assert effects.receivers(msg.UnknownAttempt) == [(fx.Inbox.ORIGIN, "p")]


def test_the_end_is_repeated_more_and_more_rarely_until_it_is_settled() -> None:
    bench = ReplicaBench(shared=cluster(heartbeat_ms=10**9))
    bench.assign(1)
    last = bench.finish(1).one(msg.Frame)
    after_ms: list[int] = []
    elapsed = 0
    for _ in range(1_100):
        elapsed += 100
        if bench.wake(100).sent(msg.Frame) == [last]:
            after_ms.append(elapsed)

    gaps = [200, *(200 << n for n in range(1, 8))]
    assert after_ms == [sum(gaps[: n + 1]) for n in range(8)]


def test_a_settled_end_is_not_repeated() -> None:
    bench = running()
    bench.finish(1)
    settle(bench, 1)

    assert bench.wake(300).sent(msg.Frame) == []
    assert repair(bench, 0).sent(msg.UnknownAttempt) != []


def test_attempts_without_tokens_are_kept_alive_one_message_per_origin() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    bench.assign(1)
    bench.enter(2)
    bench.enter(3, id="q/1/3")

    effects = bench.wake(1_000)

    assert effects.receivers(msg.KeepAlive) == [(fx.Inbox.ORIGIN, "p"), (fx.Inbox.ORIGIN, "q")]
    assert [one.held for one in effects.sent(msg.KeepAlive)] == [
        [("p/1/1", 1001), ("p/1/2", 1)],
        [("q/1/3", 1)],
    ]


def test_a_stream_that_flows_needs_no_sign_of_life() -> None:
    bench = running()
    bench.later(900)
    bench.step(tokens(1, 1001, 1))

    assert bench.wake(100).sent(msg.KeepAlive) == []


def test_an_attempt_nobody_settles_is_forgotten_after_its_life() -> None:
    bench = running(lifetime_ms=5_000)
    bench.finish(1)
    bench.wake(5_000)
    assert len(repair(bench, 0).sent(msg.Frame)) == 1

    bench.wake(1_000)
    assert repair(bench, 0).one(msg.UnknownAttempt).attempt == 1001


def test_an_attempt_that_was_refused_here_is_remembered_for_half_a_minute_only() -> None:
    bench = ReplicaBench(shared=cluster(heartbeat_ms=60_000), ready=False)
    assign = bench.assignment(1)
    bench.tell(assign)
    bench.later(29_000)
    assert len(bench.tell(assign).sent(msg.Refuse)) == 1

    bench.wake(60_000)

    assert len(repair(bench, 0).sent(msg.UnknownAttempt)) == 1


# --- cancelling and settling ----------------------------------------------------------------------


def test_a_cancelled_attempt_stops_at_the_next_step_and_ends_as_cancelled() -> None:
    bench = running()

    effects = bench.tell(msg.Cancel(id="p/1/1"))

    assert effects.of(fx.CancelWork) == [fx.CancelWork("p/1/1", 1001)]
    assert bench.tell(msg.Cancel(id="p/1/1")).of(fx.CancelWork) == [], "once"
    end = bench.step(Delta(id="p/1/1", attempt=1001, done=True)).one(msg.Frame).end
    assert end is not None
    assert (end.status, end.code) == (AttemptStatus.CANCELLED, Code.CLIENT_CANCELLED)


def test_cancelling_what_waits_ends_it_and_makes_room() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    bench.enter(2)
    bench.enter(1)

    effects = bench.tell(msg.Cancel(id="p/1/1"))

    ended = effects.one(msg.Ended)
    assert (ended.status, ended.started) == (AttemptStatus.CANCELLED, False)
    assert effects.event(ev.AttemptEnded).status == "cancelled"
    assert bench.replica.waiting == 0
    assert bench.finish(2, 1).of(fx.StartWork) == []


def test_cancelling_what_is_held_grants_its_credit_again() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1, prefetch=1))
    bench.assign(2)
    bench.assign(1)

    credit = stop(bench).credit

    assert credit.granted_total - credit.assigned_seen == 1
    assert bench.replica.held == 0


def test_a_cancel_that_overtakes_its_assignment_leaves_a_tombstone() -> None:
    bench = ReplicaBench()
    bench.tell(msg.Cancel(id="p/1/1"))

    effects = bench.assign(1)

    assert effects.of(fx.StartWork) == []
    credit = effects.credit
    assert (credit.granted_total, credit.assigned_seen) == (3, 1)


def test_an_ordinal_of_an_earlier_epoch_is_not_mistaken_for_one_of_this() -> None:
    bench = ReplicaBench()
    bench.learn(2)
    bench.tell(msg.CancelAttempt(id="p/1/9", attempt=1009, incarnation=1, epoch=1, ordinal=1))

    effects = bench.tell(bench.assignment(1, attempt=2001))

    assert [work.attempt for work in effects.of(fx.StartWork)] == [2001]


def test_a_cancel_of_a_new_epoch_is_counted_in_that() -> None:
    bench = ReplicaBench()
    stop = msg.CancelAttempt(id="p/1/9", attempt=2001, incarnation=1, epoch=2, ordinal=1)

    effects = bench.tell(stop)

    credit = effects.credits[-1]
    assert (credit.epoch, credit.granted_total, credit.assigned_seen) == (2, 3, 1)
    assert bench.learn(2).credits == []


def test_a_cancel_that_overtakes_its_entry_leaves_a_tombstone() -> None:
    bench = ReplicaBench()
    bench.tell(msg.Cancel(id="p/1/1"))

    assert bench.enter(1).of(fx.StartWork) == []


def test_a_cancelled_attempt_that_never_arrived_frees_its_credit_once() -> None:
    bench = ReplicaBench()
    assign = bench.assignment(1)

    credit = stop(bench, ordinal=1).credit
    late = bench.tell(assign)

    assert (credit.granted_total, credit.assigned_seen, credit.ordinals_below) == (3, 1, 1)
    assert late.of(fx.StartWork) == []
    assert late.credits == []
    assert stop(bench, ordinal=1).credits == []


def test_a_cancelled_attempt_spares_the_next_one_of_the_same_request() -> None:
    bench = ReplicaBench()
    stop(bench, attempt=1001)

    assert len(bench.assign(1, attempt=1002).of(fx.StartWork)) == 1


def test_a_cancel_for_another_life_is_dropped() -> None:
    bench = running()
    foreign = msg.CancelAttempt(id="p/1/1", attempt=1001, incarnation=2, epoch=1)

    assert len(bench.tell(foreign)) == 0


def test_tombstones_fade_after_two_minutes() -> None:
    bench = ReplicaBench(shared=cluster(heartbeat_ms=60_000))
    bench.tell(msg.Cancel(id="p/1/1"))
    stop(bench, attempt=1001)
    bench.wake(60_000)
    bench.wake(60_000)
    bench.wake(60_000)

    assert len(bench.assign(1, attempt=1001).of(fx.StartWork)) == 1


@pytest.mark.parametrize("kind", ["request", "attempt"])
def test_tombstones_are_bounded_the_oldest_goes_first(kind: str) -> None:
    bench = ReplicaBench()
    for number in range(1, 10_002):
        if kind == "request":
            bench.tell(msg.Cancel(id=f"p/1/{number}"))
        else:
            bench.tell(msg.CancelAttempt(id=f"p/1/{number}", attempt=1001, incarnation=1, epoch=1))

    assert len(bench.assign(1).of(fx.StartWork)) == 1
    assert bench.assign(2).of(fx.StartWork) == []


def test_settling_stops_what_runs_and_forgets_it_when_it_has_stopped() -> None:
    bench = running()

    assert len(settle(bench, 1).of(fx.CancelWork)) == 1
    assert bench.replica.running == 1
    bench.step(Delta(id="p/1/1", attempt=1001, done=True))

    assert bench.replica.idle
    assert len(repair(bench, 0).sent(msg.UnknownAttempt)) == 1
    assert bench.wake(300).sent(msg.Frame) == []


def test_settling_what_waits_forgets_it_at_once() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    bench.enter(1)
    bench.enter(2)
    settle(bench, 2)

    assert bench.replica.waiting == 0
    assert len(repair(bench, 0, number=2, attempt=1).sent(msg.UnknownAttempt)) == 1


def test_what_is_settled_is_not_begun_again() -> None:
    bench = ReplicaBench()
    settle(bench, 5, below=3)

    assert bench.assign(5).of(fx.StartWork) == []
    assert bench.enter(2).of(fx.StartWork) == []
    assert len(bench.enter(3).of(fx.StartWork)) == 1
    assert bench.replica.credit_outstanding == 1


# --- what it says of itself -----------------------------------------------------------------------


def test_once_a_beat_it_reports_its_load() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    bench.assign(1)
    bench.enter(2)
    bench.step(tokens(1, 1001, *range(40)), kv_usage=0.25)
    bench.later(400)
    bench.finish(1, n_tokens=10)

    effects = bench.wake(600)

    load = effects.event(ev.ReplicaLoad).load
    assert load == effects.credit.load
    assert (load.running, load.waiting, load.kv_usage) == (1, 0, 0.25)
    assert (load.service_ms, load.tokens_per_s) == (400.0, 50.0)
    assert bench.wake(1_000).event(ev.ReplicaLoad).load.tokens_per_s == 0.0


def test_the_service_time_moves_a_fifth_towards_the_newest() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    for number, took_ms in ((1, 100), (2, 200)):
        bench.assign(number)
        bench.later(took_ms)
        bench.finish(number)

    assert bench.wake(1_000).credit.load.service_ms == pytest.approx(120.0)


def test_the_timer_names_the_next_thing_due() -> None:
    bench = running()
    assert bench.started.of(fx.SetTimer) == [fx.SetTimer(2_000 * MS)]

    assert bench.finish(1).of(fx.SetTimer) == [fx.SetTimer(1_200 * MS)]
