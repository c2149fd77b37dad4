from __future__ import annotations

from anyserve.runtime.supervisor.restarts import RestartPolicy, Restarts


def exits(policy: RestartPolicy, lives_s: list[float]) -> list[float | None]:
    """What is decided after each of these lives, one right after the other."""
    restarts = Restarts(policy)
    now_s, waits = 0.0, []
    for lived_s in lives_s:
        now_s += lived_s
        waits.append(restarts.after_exit(now_s, lived_s))
        now_s += waits[-1] or 0.0
    return waits


def test_third_exit_within_a_minute_is_the_last() -> None:
    assert exits(RestartPolicy(), [1.0, 1.0, 1.0]) == [0.5, 1.0, None]


def test_wait_doubles_up_to_the_most() -> None:
    lives = [31.0] * 7  # never three exits within a minute
    assert exits(RestartPolicy(), lives) == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_long_life_makes_the_next_wait_short_again() -> None:
    assert exits(RestartPolicy(), [31.0, 31.0, 31.0, 61.0, 31.0]) == [0.5, 1.0, 2.0, 0.5, 1.0]


def test_exit_just_outside_the_window_is_not_counted() -> None:
    assert exits(RestartPolicy(), [0.0, 0.0, 59.5])[-1] is not None  # waits: 0.5 and 1.0
    assert exits(RestartPolicy(), [0.0, 0.0, 58.4])[-1] is None


def test_ordered_exits_are_never_held_against_a_process() -> None:
    restarts = Restarts(RestartPolicy())
    assert [restarts.after_exit(1.0, 1.0, ordered=True) for _ in range(5)] == [0.5] * 5
    assert restarts.after_exit(2.0, 1.0) == 0.5


def test_thousands_of_exits_do_not_overflow() -> None:
    policy = RestartPolicy(limit=2, window_s=0.0)
    assert exits(policy, [1.0] * 3000)[-1] == policy.most_s
