"""What an observer keeps of what it has not looked at yet."""

from __future__ import annotations

from anyserve.runtime.observer.inbox import AT_ONCE_BYTES, Inbox


def events(count: int, size: int = 0) -> bytes:
    return b"[" + b",".join(b'{"seq":%d}' % n for n in range(count)) + b" " * size + b"]"


def test_it_gives_what_came_in_order() -> None:
    inbox = Inbox()
    for topic in ("a", "b", "c"):
        inbox.put(topic, events(1))
    assert [topic for topic, _ in inbox.take()] == ["a", "b", "c"]
    assert inbox.take() == []


def test_above_the_high_water_mark_new_ones_are_dropped_and_their_events_counted() -> None:
    inbox = Inbox(high_water_bytes=100)
    inbox.put("a", events(3))
    inbox.put("b", events(20))
    inbox.put("c", events(2))
    assert inbox.dropped == 20
    assert [topic for topic, _ in inbox.take()] == ["a", "c"]
    inbox.put("d", events(5))
    assert inbox.dropped == 20


def test_a_screen_is_given_no_more_at_once_than_it_can_fold_between_two_keys() -> None:
    inbox = Inbox()
    for number in range(5):
        inbox.put(str(number), events(1, AT_ONCE_BYTES // 2))
    sizes = []
    while taken := inbox.take():
        sizes.append(len(taken))
    assert sizes == [2, 2, 1]


async def test_whoever_waits_is_woken() -> None:
    inbox = Inbox()
    inbox.put("a", events(1))
    await inbox.wait(60)
    inbox.take()
    inbox.wake()
    await inbox.wait(60)
