from __future__ import annotations

from builders import deadline, request

from anyserve.core.order import MS, Ordering, deadline_ns
from anyserve.core.spec import SchedulerSpec

FIFO = SchedulerSpec(ageing_ms=1_000)
BY_DEADLINE = SchedulerSpec(order="deadline", ageing_ms=1_000)


def test_a_deadline_on_the_same_host_is_exact() -> None:
    due = request(deadline=deadline(500, boot="here"))

    assert deadline_ns(due, "here", now=7 * MS) == 500 * MS


def test_a_deadline_of_another_host_is_what_was_left_when_it_was_said() -> None:
    due = request(deadline=deadline(500, now_ms=100, boot="elsewhere"))

    assert deadline_ns(due, "here", now=7_000 * MS) == 7_400 * MS


def test_without_a_deadline_there_is_none() -> None:
    assert deadline_ns(request(), "", now=0) is None


def test_who_was_offered_first_goes_first() -> None:
    early = Ordering(FIFO, "").place(request(2, offered_ns=10), now=99)
    late = Ordering(FIFO, "").place(request(1, offered_ns=20), now=99)

    assert early < late


def test_the_offered_time_of_another_host_means_nothing_here() -> None:
    foreign = Ordering(FIFO, "here").place(request(offered_ns=1, boot="elsewhere"), now=50)

    assert foreign == (50, 50, "p/1/1")


def test_one_step_of_priority_is_worth_the_ageing_time() -> None:
    urgent = Ordering(FIFO, "").place(request(1, offered_ns=1_000 * MS, priority=0), now=0)
    patient = Ordering(FIFO, "").place(request(2, offered_ns=0, priority=1), now=0)
    older = Ordering(FIFO, "").place(request(3, offered_ns=-1, priority=1), now=0)

    assert patient[0] == urgent[0]
    assert older < urgent


def test_by_deadline_the_earlier_due_goes_first() -> None:
    soon = Ordering(BY_DEADLINE, "").place(request(1, offered_ns=9 * MS, deadline=deadline(20)), 0)
    later = Ordering(BY_DEADLINE, "").place(request(2, offered_ns=0, deadline=deadline(30)), 0)

    assert soon < later


def test_by_deadline_who_has_none_is_due_after_the_ageing_time() -> None:
    none = Ordering(BY_DEADLINE, "").place(request(1, offered_ns=0), 0)
    before = Ordering(BY_DEADLINE, "").place(request(2, deadline=deadline(999)), 0)
    far = Ordering(BY_DEADLINE, "").place(request(3, deadline=deadline(5_000), offered_ns=1), 0)

    assert before < none < far


def test_in_arrival_order_deadlines_do_not_count() -> None:
    due = Ordering(FIFO, "").place(request(1, deadline=deadline(1), offered_ns=5), 0)
    first = Ordering(FIFO, "").place(request(2, offered_ns=4), 0)

    assert first < due


def test_equal_times_are_told_apart_by_id() -> None:
    one = Ordering(FIFO, "").place(request(1), 0)
    two = Ordering(FIFO, "").place(request(2), 0)

    assert one[:2] == two[:2]
    assert one < two
