"""Lost attempts: restart, resume or fail; silence, and what is asked of whom."""

from __future__ import annotations

import pytest
from benches import OriginBench
from builders import Effects, cluster, end

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.effects import OutcomeKind
from anyserve.core.inputs import BusDown, BusUp
from anyserve.core.messages import Code
from anyserve.core.spec import ClusterSpec

RESUME = cluster(capability={"mid_stream": "resume"})


def outcome(effects: Effects) -> fx.Outcome:
    (finish,) = effects.of(fx.Finish)
    return finish.outcome


def offered(shared: ClusterSpec | None = None, **fields: object) -> OriginBench:
    bench = OriginBench(shared)
    bench.offer(**fields)  # type: ignore[arg-type]
    return bench


def alive(bench: OriginBench, attempt: int = 1001) -> Effects:
    return bench.tell(msg.KeepAlive(replica="r1", incarnation=1, held=[("p/1/1", attempt)]))


def unknown(bench: OriginBench, attempt: int = 1001) -> Effects:
    return bench.tell(msg.UnknownAttempt(id="p/1/1", attempt=attempt, replica="r1"))


# --- an attempt is lost --------------------------------------------------------------------------


def test_before_the_first_token_it_begins_anew() -> None:
    bench = offered()

    effects = bench.lost()

    submit = effects.one(msg.Submit)
    assert (submit.submission, submit.last_attempt, submit.resent) == (2, 1001, False)
    assert submit.request.resume_ids == []
    event = effects.event(ev.RequestSubmitted)
    assert (event.submission, event.entry, event.resumed) == (2, "scheduler", 0)


def test_after_the_first_token_it_fails_unless_the_capability_may_resume() -> None:
    bench = offered()
    bench.frame(0, 7)

    effects = bench.lost()

    failed = outcome(effects)
    assert (failed.kind, failed.code, failed.n_tokens) == (
        OutcomeKind.FAILED,
        Code.REPLICA_LOST,
        1,
    )
    assert "1 tokens had reached the client" in failed.message
    assert effects.sent(msg.Submit) == []


def test_a_resumed_request_continues_from_what_the_client_has() -> None:
    bench = offered(RESUME)
    bench.frame(0, 7)
    bench.frame(1, 8)

    submit = bench.lost().one(msg.Submit)
    assert (submit.request.resume_ids, submit.submission) == ([7, 8], 2)

    second = {"attempt": 1002, "submission": 2, "replica": "r2"}
    assert bench.frame(0, 9, start=2, **second).of(fx.Deliver)[0].frame.tokens == [9]
    done = outcome(bench.frame(1, start=3, end=end(3), **second))
    assert (done.kind, done.n_tokens, done.served_by) == (OutcomeKind.COMPLETED, 3, "r2")


@pytest.mark.parametrize("fields", [{"resumable": False}, {"choices": 2}])
def test_what_cannot_be_continued_is_not_resumed(fields: dict[str, object]) -> None:
    bench = offered(RESUME, **fields)
    bench.frame(0, 7)

    assert outcome(bench.lost()).code is Code.RESUME_REFUSED


@pytest.mark.parametrize(
    ("entered", "told", "again"),
    [
        ("decode", "decode.heavy", "decode.heavy"),
        ("decode.heavy", "decode", "decode.heavy"),
        ("decode", "", "decode"),
    ],
)
def test_a_loss_says_which_rung_was_reached_and_never_leads_down(
    entered: str, told: str, again: str
) -> None:
    bench = offered(capability=entered)

    assert bench.lost(capability=told).one(msg.Submit).request.capability == again


def test_with_all_its_tokens_there_only_the_end_was_lost() -> None:
    bench = offered(max_tokens=2)
    bench.frame(0, 7, 8)

    done = outcome(bench.lost())

    assert (done.kind, done.finish, done.n_tokens) == (OutcomeKind.COMPLETED, "length", 2)


def test_a_loss_that_is_said_twice_counts_once() -> None:
    bench = offered()
    bench.lost()

    assert len(bench.lost()) == 0


def test_the_loss_of_another_attempt_than_the_one_that_streams_is_ignored() -> None:
    bench = offered()
    bench.frame(0, 7)

    assert len(bench.lost(attempt=1000)) == 0
    assert bench.origin.open_requests == 1


def test_late_frames_of_the_lost_attempt_are_dropped() -> None:
    bench = offered()
    bench.lost()

    assert bench.frame(0, 7).of(fx.Deliver) == []


def test_a_rejection_of_the_recovery_after_tokens_is_a_failure() -> None:
    bench = offered(RESUME)
    bench.frame(0, 7)
    bench.lost()

    failed = outcome(bench.tell(msg.Rejected(id="p/1/1", submission=2, code=Code.NO_REPLICA)))

    assert (failed.kind, failed.code, failed.n_tokens) == (
        OutcomeKind.FAILED,
        Code.NO_REPLICA,
        1,
    )


def test_a_recovery_goes_to_the_scheduler_though_the_request_entered_elsewhere() -> None:
    bench = offered(entry="r1")

    effects = bench.lost(attempt=1)

    assert effects.receivers(msg.Submit) == [(fx.Inbox.SCHEDULER, "")]
    assert effects.one(msg.Submit).last_attempt == 1


# --- silence -------------------------------------------------------------------------------------


def test_a_submission_without_answer_is_sent_again_more_and_more_rarely() -> None:
    bench = offered()
    first = bench.wake(2_000).one(msg.Submit)
    assert (first.submission, first.resent) == (1, True)

    assert bench.wake(3_999).sent(msg.Submit) == []
    assert len(bench.wake(1).sent(msg.Submit)) == 1
    gaps = []
    for _ in range(4):
        waited = 0
        while not bench.wake(1_000).sent(msg.Submit):
            waited += 1_000
        gaps.append(waited + 1_000)
    assert gaps == [8_000, 16_000, 30_000, 30_000]


def test_an_accepted_submission_is_asked_after_anew_from_the_short_end() -> None:
    bench = offered()
    bench.wake(2_000)
    bench.tell(msg.Accepted(id="p/1/1", capability="decode", epoch=1, submission=1))

    assert bench.wake(1_999).sent(msg.Submit) == []
    assert bench.wake(1).one(msg.Submit).resent


def test_a_silent_stream_is_asked_for_and_given_up_after_three_questions() -> None:
    bench = offered()
    bench.frame(0, 7)
    asked = [bench.wake(2_000), bench.wake(1_000), bench.wake(1_000)]

    assert [len(some.sent(msg.Repair)) for some in asked] == [1, 1, 1]
    assert asked[0].one(msg.Repair) == msg.Repair(id="p/1/1", attempt=1001, sequence=1)
    failed = outcome(bench.wake(1_000))
    assert (failed.kind, failed.code) == (OutcomeKind.FAILED, Code.REPLICA_LOST)


def test_a_sign_of_life_ends_the_questions() -> None:
    bench = offered()
    bench.frame(0, 7)
    for _ in range(3):
        bench.wake(2_000)
        bench.wake(1_000)
        alive(bench)

    assert bench.wake(1_999).sent(msg.Repair) == []
    assert len(bench.wake(1).sent(msg.Repair)) == 1


def test_a_sign_of_life_tells_who_holds_it() -> None:
    bench = offered()
    alive(bench)

    asked = bench.wake(2_000)

    assert asked.receivers(msg.Repair) == [(fx.Inbox.REPLICA_ENTRY, "r1")]
    assert asked.one(msg.Repair) == msg.Repair(id="p/1/1", attempt=1001, sequence=0)


def test_signs_of_life_of_other_attempts_and_requests_count_for_nothing() -> None:
    bench = offered()
    bench.frame(0, 7)
    bench.later(1_500)
    alive(bench, attempt=1000)
    alive(bench, attempt=1002)
    bench.tell(msg.KeepAlive(replica="r1", incarnation=1, held=[("p/1/9", 1)]))

    assert len(bench.wake(500).sent(msg.Repair)) == 1


def test_a_silent_entry_replica_is_asked_whether_it_has_the_request() -> None:
    bench = offered(entry="r1")

    asked = bench.wake(2_000)

    assert asked.receivers(msg.Repair) == [(fx.Inbox.REPLICA_ENTRY, "r1")]
    assert asked.one(msg.Repair) == msg.Repair(id="p/1/1", attempt=1, sequence=0)


def test_an_entry_that_never_arrived_is_sent_again_and_costs_no_recovery() -> None:
    bench = offered(entry="r1")
    bench.wake(2_000)

    effects = unknown(bench, attempt=1)

    assert effects.receivers(msg.Entry) == [(fx.Inbox.REPLICA_ENTRY, "r1")]
    assert effects.one(msg.Entry).submission == 1
    assert effects.event(ev.RequestSubmitted).resent
    assert effects.sent(msg.Submit) == []


def test_an_entry_replica_that_never_answers_is_left_for_the_scheduler() -> None:
    bench = offered(entry="r1")
    for gap_ms in (2_000, 1_000, 1_000):
        bench.wake(gap_ms)

    effects = bench.wake(1_000)

    assert effects.one(msg.Submit).submission == 2


def test_an_attempt_its_replica_does_not_know_is_lost() -> None:
    bench = offered()
    alive(bench)

    effects = unknown(bench)

    assert effects.one(msg.Submit).submission == 2


@pytest.mark.parametrize("attempt", [1000, 1002])
def test_another_attempt_that_is_unknown_changes_nothing(attempt: int) -> None:
    bench = offered()
    bench.frame(0, 7)

    assert len(unknown(bench, attempt)) == 0


def test_unknown_at_the_entry_counts_for_nothing_once_the_scheduler_has_it() -> None:
    bench = offered(entry="r1")
    bench.tell(msg.Accepted(id="p/1/1", capability="decode.heavy", epoch=1, submission=1))

    assert len(unknown(bench, attempt=1)) == 0
    asked = bench.wake(2_000)
    assert asked.sent(msg.Repair) == []
    assert asked.one(msg.Submit).request.capability == "decode.heavy"


def test_an_acceptance_never_leads_down_the_ladder_or_back_a_submission() -> None:
    bench = offered(capability="decode.heavy")
    bench.tell(msg.Accepted(id="p/1/1", capability="decode", epoch=1, submission=1))
    bench.tell(msg.Accepted(id="p/1/1", capability="decode.huge", epoch=1, submission=2))

    assert bench.lost().one(msg.Submit).request.capability == "decode.heavy"


# --- the bus and scheduler lives -----------------------------------------------------------------


def test_without_its_bus_it_asks_nobody_and_gives_nothing_up() -> None:
    bench = offered()
    bench.frame(0, 7)
    bench.tell(BusDown())

    assert bench.wake(60_000).of(fx.Send) == []
    assert bench.origin.open_requests == 1


def test_after_a_reconnect_it_waits_a_beat_before_it_asks() -> None:
    bench = offered()
    bench.frame(0, 7)
    bench.tell(BusDown())
    bench.later(60_000)
    up = bench.tell(BusUp(connection=2))

    settled = up.one(msg.Settled)
    assert (settled.all_open, settled.ids, settled.settled_below) == (True, [], 1)
    assert bench.wake(999).sent(msg.Repair) == []
    assert len(bench.wake(1).sent(msg.Repair)) == 1


def test_before_any_scheduler_is_known_a_connection_says_nothing() -> None:
    assert len(OriginBench(epoch=0).tell(BusUp(connection=1))) == 0


def test_a_new_scheduler_life_hears_what_is_settled_and_what_waits() -> None:
    bench = offered()
    bench.offer()
    bench.offer(entry="r1")
    bench.frame(0, 7, id="p/1/2", end=end(1))

    effects = bench.learn(2)

    settled = effects.one(msg.Settled)
    assert (settled.ids, settled.settled_below, settled.all_open) == (["p/1/2"], 1, True)
    submits = effects.sent(msg.Submit)
    assert [(one.request.id, one.epoch, one.resent) for one in submits] == [("p/1/1", 2, True)]
    assert submits[0].request.first_epoch == 1
    assert effects.event(ev.EpochChanged).epoch == 2
    assert bench.origin.epoch == 2


def test_a_life_heard_of_before_or_earlier_changes_nothing() -> None:
    bench = offered()

    assert len(bench.learn(1)) == 0
    assert len(bench.tell(msg.StaleEpoch(epoch=0))) == 0


def test_a_stream_that_flows_is_not_submitted_to_a_new_life() -> None:
    bench = offered()
    bench.frame(0, 7)

    assert bench.tell(msg.StaleEpoch(epoch=2)).sent(msg.Submit) == []


def test_what_a_replica_holds_is_not_submitted_to_a_new_life() -> None:
    bench = offered()
    alive(bench)

    assert bench.learn(2).sent(msg.Submit) == []


def test_what_a_new_life_already_accepted_is_not_submitted_to_it_again() -> None:
    bench = offered()
    bench.tell(msg.Accepted(id="p/1/1", capability="decode", epoch=2, submission=1))

    assert bench.learn(2).sent(msg.Submit) == []


def test_what_was_delegated_and_waits_is_submitted_to_a_new_life() -> None:
    bench = offered(entry="r1")
    bench.tell(msg.Accepted(id="p/1/1", capability="decode.heavy", epoch=1, submission=1))

    submit = bench.learn(2).one(msg.Submit)

    assert (submit.request.capability, submit.request.asked) == ("decode.heavy", "decode")
