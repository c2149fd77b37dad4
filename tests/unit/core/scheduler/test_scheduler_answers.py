"""What an origin is told that asks again: whatever told it before may be lost."""

from __future__ import annotations

from benches import SchedulerBench
from builders import cluster, offer

from anyserve.core import messages as msg
from anyserve.core.messages import Code


def test_one_that_began_is_at_its_replica() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1")
    assign = bench.assigned(1)
    r1.started(assign)

    alive = bench.submit(1).one(msg.KeepAlive)

    assert (alive.replica, alive.incarnation) == ("r1", 1)
    assert alive.held == [("p/1/1", assign.attempt)]


def test_one_whose_assignment_arrived_is_there_too() -> None:
    """With a prefetch it is held there, and `started` may be lost."""
    bench = SchedulerBench()
    r1 = bench.peer("r1")
    bench.assigned(1)
    r1.see()
    r1.credit()

    assert bench.submit(1).one(msg.KeepAlive).replica == "r1"


def test_one_that_may_never_have_arrived_is_nowhere_yet() -> None:
    """Told to ask there, the origin would take the answer for a loss."""
    bench = SchedulerBench()
    bench.peer("r1")
    bench.assigned(1)

    assert len(bench.submit(1)) == 0


def test_one_that_entered_is_nowhere_before_it_was_admitted() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1", offer("decode.heavy"))
    entry = bench.submit(1).one(msg.Entry)

    assert len(bench.submit(1)) == 0
    r1.admitted(entry)
    assert bench.submit(1).one(msg.KeepAlive).replica == "r1"


def test_one_that_ended_has_its_frames_where_it_ran() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1")
    assign = bench.assigned(1)
    r1.started(assign)
    r1.ended(assign)

    alive = bench.submit(1).one(msg.KeepAlive)

    assert (alive.replica, alive.held) == ("r1", [("p/1/1", assign.attempt)])


def test_one_that_was_lost_is_lost_still() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1")
    assign = bench.assigned(1)
    r1.gone()

    lost = bench.submit(1).one(msg.AttemptLost)

    assert (lost.attempt, lost.submission, lost.code) == (assign.attempt, 1, Code.REPLICA_LOST)


def test_a_tombstone_holds_against_every_copy_of_its_request() -> None:
    bench = SchedulerBench()
    bench.peer("r1")
    bench.tell(msg.Cancel(id="p/1/1"))

    codes = [bench.submit(1).one(msg.Rejected).code for _ in range(2)]

    assert codes == [Code.CLIENT_CANCELLED] * 2


def test_what_came_back_before_a_restart_is_not_refused_for_fullness_after_it() -> None:
    spec = cluster(capability={"queue_limit": 1})
    before = SchedulerBench(spec)
    r1 = before.peer("r1")
    r1.give_back(before.assigned(1))

    after = SchedulerBench(spec, journal=before.journal)
    after.peer("r1", credit=False)
    after.submit(2)

    assert after.submit(1).one(msg.Accepted).id == "p/1/1"
    assert after.submit(3).one(msg.Rejected).code is Code.QUEUE_FULL


def test_a_return_that_is_said_again_to_a_new_scheduler_life_is_counted_once() -> None:
    before = SchedulerBench()
    r1 = before.peer("r1")
    back = msg.Return(**r1.back(msg.Entry(request=before.request(1))))
    before.tell(back)

    after = SchedulerBench(journal=before.journal)
    after.peer("r1")
    after.tell(back)

    assert after.scheduler.tickets["p/1/1"].returns == 1


def test_a_delegation_is_counted_though_a_return_of_that_attempt_was() -> None:
    """A request can enter twice as attempt 1: its replica died before the origin heard of it."""
    before = SchedulerBench()
    r1 = before.peer("r1")
    entry = msg.Entry(request=before.request(1))
    before.tell(msg.Return(**r1.back(entry)))

    after = SchedulerBench(journal=before.journal)
    peer = after.peer("r1", offer("decode.heavy"))
    peer.delegate(entry)

    assert after.scheduler.tickets["p/1/1"].delegations == 1


def test_a_hand_back_tells_how_an_attempt_ended_unheard() -> None:
    """It was said while the connection was down, and `holding` came first."""
    bench = SchedulerBench()
    r1 = bench.peer("r1", credit=False)
    entry = msg.Entry(request=bench.request(1))
    r1.admitted(entry)
    r1.holding()

    effects = r1.give_back(entry)

    assert effects.one(msg.Accepted).id == "p/1/1"
    assert bench.scheduler.depth("decode") == 1


def test_a_hand_back_does_not_revive_what_was_cancelled() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1", credit=False)
    entry = msg.Entry(request=bench.request(1))
    r1.admitted(entry)
    r1.holding()
    bench.tell(msg.Cancel(id="p/1/1"))

    assert r1.give_back(entry).one(msg.Rejected).code is Code.CLIENT_CANCELLED
    assert bench.scheduler.depth("decode") == 0
