from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anyserve.telemetry.lately import Lately
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.views import LatelyView, RoutingCell

S = 1_000_000_000


def test_only_the_last_seconds_count() -> None:
    lately = Lately(length_s=30)
    lately.offer(1 * S, "chat")
    lately.start(1 * S, "chat", "r1")
    lately.offer(20 * S, "chat", 2)
    lately.start(20 * S, "chat", "r2", 2)
    lately.delegate(20 * S, "chat", "r2")
    lately.fail(25 * S, "chat")
    assert lately.view(30 * S) == LatelyView(
        30,
        {"chat": 3},
        {"chat": 1},
        (RoutingCell("chat", "r1", 1, 0), RoutingCell("chat", "r2", 2, 1)),
    )
    assert lately.view(31 * S).routing == (RoutingCell("chat", "r2", 2, 1),)
    assert lately.view(90 * S) == LatelyView(30)


def test_a_view_stays_as_it_was_and_is_made_again_only_for_news() -> None:
    lately = Lately()
    lately.start(5 * S, "chat", "r1")
    before = lately.view(5 * S)
    assert lately.view(6 * S) is before
    lately.start(6 * S, "chat", "r1")
    assert before.routing == (RoutingCell("chat", "r1", 1, 0),)
    assert lately.view(6 * S).routing == (RoutingCell("chat", "r1", 2, 0),)


def test_what_is_heard_too_late_is_left_out() -> None:
    lately = Lately(length_s=30)
    lately.start(100 * S, "chat", "r1")
    lately.start(20 * S, "chat", "r2")
    assert lately.view(100 * S).routing == (RoutingCell("chat", "r1", 1, 0),)


def test_a_clock_that_was_set_back_leaves_nothing_from_the_future() -> None:
    lately = Lately(length_s=30)
    lately.start(1000 * S, "chat", "r1")
    lately.start(10 * S, "chat", "r2")
    assert lately.view(10 * S).routing == (RoutingCell("chat", "r2", 1, 0),)


@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.sampled_from("ab"), st.sampled_from("xyz")), max_size=60
    )
)
def test_it_is_the_sum_over_the_window(starts: list[tuple[int, str, str]]) -> None:
    lately = Lately(length_s=30)
    now = 0
    for at_s, asked, replica in starts:
        now = max(now, at_s)
        lately.start(at_s * S, asked, replica)
        lately.view(now * S)
    cells = {(one.asked, one.replica): one.started for one in lately.view(now * S).routing}
    counted = [(asked, replica) for at_s, asked, replica in starts if at_s > now - 30]
    assert cells == {key: counted.count(key) for key in counted}
    assert len(lately._seconds) <= 30


def test_the_reducer_counts_the_window_as_it_counts_the_run() -> None:
    teller = Storyteller()
    for n in range(90):
        legs = [Leg("r1", end="delegate", routed=False), Leg("r2")] if n % 3 == 0 else [Leg("r1")]
        teller.request(f"p/1/{n}", legs, intended_ns=n * S)
    reducer = Reducer()
    reducer.apply_all(sorted(teller.envelopes, key=lambda one: one.t))
    snapshot = reducer.snapshot()
    whole = {one.replica: (one.started, one.delegated) for one in snapshot.routing}
    lately = {one.replica: (one.started, one.delegated) for one in snapshot.lately.routing}
    assert whole == {"r1": (60, 0), "r2": (30, 30)}
    assert lately == {"r1": (20, 0), "r2": (10, 10)}
    assert sum(snapshot.lately.offered.values()) == 30
