"""What the client sees: every token once, in order, from one attempt at a time."""

from __future__ import annotations

import msgspec
import pytest
from benches import OriginBench
from builders import Effects, end, frame

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.effects import OutcomeKind
from anyserve.core.inputs import Enough
from anyserve.core.messages import AttemptStatus, Code
from anyserve.core.order import MS


def delivered(*effects: Effects) -> list[int]:
    """Tokens that went to the client."""
    return [token for some in effects for one in some.of(fx.Deliver) for token in one.frame.tokens]


def outcome(effects: Effects) -> fx.Outcome:
    (finish,) = effects.of(fx.Finish)
    return finish.outcome


def streaming() -> OriginBench:
    """Request 1 is offered at the scheduler."""
    bench = OriginBench()
    bench.offer()
    return bench


def test_tokens_are_delivered_as_they_come() -> None:
    bench = streaming()

    first, second = bench.frame(0, 7), bench.frame(1, 8)

    assert (delivered(first), delivered(second)) == ([7], [8])
    assert first.event(ev.RequestFirstToken).attempt == 1001
    assert second.emitted(ev.RequestFirstToken) == []


def test_the_last_frame_completes_the_request() -> None:
    bench = streaming()
    bench.frame(0, 7)

    effects = bench.frame(1, 8, end=end(2))

    assert delivered(effects) == [8]
    done = outcome(effects)
    assert (done.kind, done.finish, done.served_by) == (OutcomeKind.COMPLETED, "length", "r1")
    assert (done.attempt, done.n_tokens) == (1001, 2)
    event = effects.event(ev.RequestOutcome)
    assert (event.outcome, event.n_tokens, event.submissions) == ("completed", 2, 1)
    assert bench.origin.open_requests == 0


def test_the_outcome_settles_the_request_with_everyone_who_heard_of_it() -> None:
    bench = streaming()

    effects = bench.frame(0, 7, end=end(1))

    settled = effects.sent(msg.Settled)
    assert effects.receivers(msg.Settled) == [
        (fx.Inbox.SCHEDULER, ""),
        (fx.Inbox.REPLICA_ENTRY, "r1"),
    ]
    assert settled[0] == msg.Settled(origin="p", incarnation=1, ids=["p/1/1"], settled_below=2)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (AttemptStatus.COMPLETED, OutcomeKind.COMPLETED),
        (AttemptStatus.FAILED, OutcomeKind.FAILED),
    ],
)
def test_the_attempt_s_end_decides_the_outcome(status: AttemptStatus, kind: OutcomeKind) -> None:
    bench = streaming()

    effects = bench.frame(
        0, end=end(0, status=status, code=Code.ENGINE_ERROR, message="because", finish=[""])
    )

    done = outcome(effects)
    assert (done.kind, done.code, done.message) == (kind, Code.ENGINE_ERROR, "because")
    assert done.finish is None


def test_an_attempt_that_was_stopped_but_not_by_its_origin_is_a_loss() -> None:
    """A restarted scheduler had two attempts and stopped the one that the client was reading."""
    bench = streaming()

    stopped = end(0, status=AttemptStatus.CANCELLED, finish=[""], code=Code.REPLICA_LOST)

    effects = bench.frame(0, end=stopped)

    assert effects.one(msg.Submit).submission == 2


def test_an_operator_s_cancel_reaches_the_outcome() -> None:
    bench = streaming()
    stopped = end(0, status=AttemptStatus.CANCELLED, finish=[""], code=Code.CLIENT_CANCELLED)

    done = outcome(bench.frame(0, end=stopped))

    assert (done.kind, done.code) == (OutcomeKind.CANCELLED, Code.CLIENT_CANCELLED)


def test_frames_out_of_order_wait_for_the_gap_to_close() -> None:
    bench = streaming()

    assert delivered(bench.frame(2, 9)) == []
    assert delivered(bench.frame(0, 7)) == [7]
    assert delivered(bench.frame(1, 8)) == [8, 9]


def test_a_frame_twice_is_delivered_once_before_and_after_its_turn() -> None:
    bench = streaming()
    effects = [bench.frame(n, token) for n, token in ((1, 8), (1, 8), (0, 7), (0, 7), (1, 8))]

    assert delivered(*effects) == [7, 8]


def test_a_gap_is_repaired_after_a_tenth_of_a_second() -> None:
    bench = streaming()
    bench.frame(0, 7)
    effects = bench.frame(2, 9)
    assert fx.SetTimer(bench.now + 100 * MS) in effects
    assert bench.wake(99).sent(msg.Repair) == []

    asked = bench.wake(1)

    assert asked.one(msg.Repair) == msg.Repair(id="p/1/1", attempt=1001, sequence=1)
    assert asked.receivers(msg.Repair) == [(fx.Inbox.REPLICA_ENTRY, "r1")]


def test_a_gap_that_closed_in_time_is_not_repaired() -> None:
    bench = streaming()
    bench.frame(1, 8)
    bench.later(50)
    bench.frame(0, 7)

    assert bench.wake(50).sent(msg.Repair) == []


def test_the_first_attempt_that_streams_is_the_only_one_that_does() -> None:
    bench = streaming()
    bench.frame(0, 7)

    others = [
        bench.frame(1, 90, replica="r2"),
        bench.frame(1, 91, attempt=1002),
        bench.frame(1, 92, incarnation=2),
        bench.frame(1, 93, submission=2),
    ]

    assert delivered(*others) == []
    assert delivered(bench.frame(1, 8)) == [8]


def test_choices_are_delivered_side_by_side() -> None:
    bench = OriginBench()
    bench.offer(choices=2)

    effects = [
        bench.frame(0, 1, choice=0, start=0),
        bench.frame(1, 2, choice=1, start=0),
        bench.frame(2, 3, choice=1, start=1, end=end(1, 2, finish=["stop", "length"])),
    ]

    assert delivered(*effects) == [1, 2, 3]
    assert outcome(effects[-1]).n_tokens == 3
    assert outcome(effects[-1]).finish == "length,stop"


def test_data_counts_as_the_first_answer() -> None:
    bench = streaming()

    effects = bench.frame(0, data=msgspec.Raw(b"[0.5]"), end=end(0, finish=["stop"]))

    assert len(effects.of(fx.Deliver)) == 1
    assert len(effects.emitted(ev.RequestFirstToken)) == 1
    assert outcome(effects).kind is OutcomeKind.COMPLETED


def test_data_that_came_over_the_wire_is_delivered_as_it_was() -> None:
    bench = streaming()
    written = msgspec.json.encode(frame(0, data=msgspec.Raw(b"[0.5,1.5]"), end=end(0)))

    effects = bench.tell(msgspec.json.decode(written, type=msg.Frame))

    (delivery,) = effects.of(fx.Deliver)
    assert msgspec.json.decode(delivery.frame.data) == [0.5, 1.5]


def test_tokens_that_do_not_continue_the_answer_are_never_delivered() -> None:
    bench = streaming()

    effects = bench.frame(0, 9, start=3)

    assert delivered(effects) == []
    assert effects.one(msg.Submit).submission == 2


def test_the_gaps_between_tokens_are_counted_and_add_up() -> None:
    bench = streaming()
    bench.frame(0, 1)
    bench.later(10)
    bench.frame(1, 2, 3)
    bench.later(40)

    event = bench.frame(2, 4, start=3, end=end(4)).event(ev.RequestOutcome)

    assert sum(event.itl_ns.values()) == 3
    five, forty = sorted(event.itl_ns)
    assert 5 * MS <= five < 6.5 * MS
    assert 40 * MS <= forty < 51 * MS
    assert (event.itl_ns[five], event.itl_ns[forty]) == (2, 1)
    assert event.first_ns == bench.now - 50 * MS
    assert event.end_ns == bench.now


def test_a_gap_longer_than_all_buckets_falls_into_the_last() -> None:
    bench = streaming()
    bench.frame(0, 1)
    bench.later(500_000)

    event = bench.frame(1, 2, end=end(2)).event(ev.RequestOutcome)

    assert event.itl_ns == {100_000 * MS: 1}


def test_a_repeated_end_of_a_settled_request_is_settled_again() -> None:
    bench = streaming()
    last = frame(0, 7, end=end(1))
    bench.tell(last)

    again = bench.tell(last)

    assert again.one(msg.Settled).ids == ["p/1/1"]
    assert again.receivers(msg.Settled) == [(fx.Inbox.REPLICA_ENTRY, "r1")]
    assert again.of(fx.Finish) == []


def test_late_frames_without_an_end_and_frames_of_other_lives_get_no_answer() -> None:
    bench = streaming()
    bench.frame(0, 7, end=end(1))

    assert len(bench.frame(0, 7)) == 0
    assert len(bench.frame(0, 7, id="p/2/1", end=end(1))) == 0
    assert len(bench.frame(0, 7, id="q/1/1", end=end(1))) == 0


def test_the_outcome_tells_who_served_as_what_after_how_many_delegations() -> None:
    bench = OriginBench()
    bench.offer(choices=2, resumable=False)
    bench.frame(0, 7, capability="decode.heavy", delegations=1)

    last = end(1, 0, finish=["stop", "length"], cached_tokens=3)
    done = outcome(bench.frame(1, end=last))

    assert (done.capability, done.delegations) == ("decode.heavy", 1)
    assert (done.finishes, done.finish, done.cached_tokens) == (
        ["stop", "length"],
        "length,stop",
        3,
    )


def test_a_client_that_has_enough_completes_its_request_and_stops_the_attempt() -> None:
    bench = streaming()
    bench.frame(0, 7, 8, capability="decode")

    effects = bench.tell(Enough(id="p/1/1"))

    done = outcome(effects)
    assert (done.kind, done.finish, done.code) == (OutcomeKind.COMPLETED, "stop", None)
    assert (done.served_by, done.capability, done.n_tokens) == ("r1", "decode", 2)
    assert done.attempt is None  # its last word is not in
    assert (fx.Inbox.REPLICA_ENTRY, "r1") in effects.receivers(msg.Cancel)
    assert bench.tell(Enough(id="p/1/1")).of(fx.Finish) == []
    assert bench.frame(1, end=end(2)).of(fx.Finish) == []
