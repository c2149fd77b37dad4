"""The MQTT conversation, told as who says what to whom."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from anyserve.cli.story import essentials, event_line, short_id, story_line, who
from anyserve.core.messages import (
    Accepted,
    Assign,
    Cancel,
    Code,
    Credit,
    Delegate,
    DelegateReason,
    Entry,
    Frame,
    Gone,
    Message,
    Operate,
    Rejected,
    Repair,
    Request,
    Settled,
    Submit,
)

REQUEST = Request(
    id="player/17/3",
    asked="decode",
    capability="decode",
    prompt_tokens=5,
    max_tokens=8,
    offered_ns=1,
)


def plain(message: Message) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(message))
    return decoded


FRAME = Frame(id="player/17/3", attempt=1, submission=1, replica="s1", incarnation=1, sequence=0)
DELEGATE = Delegate(
    id="player/17/3",
    attempt=1,
    submission=1,
    replica="s1",
    incarnation=1,
    epoch=1,
    request=REQUEST,
    reason=DelegateReason.TOO_LONG,
    min_rung="decode.heavy",
)
CREDIT = Credit(
    replica="s1",
    incarnation=1,
    epoch=1,
    sequence=1,
    granted_total=4,
    taken_total=0,
    assigned_seen=0,
)
ASSIGN = Assign(request=REQUEST, attempt=1, submission=1, incarnation=1, epoch=1, ordinal=1)


@pytest.mark.parametrize(
    ("topic", "message", "expected"),
    [
        ("sched/in", Submit(request=REQUEST, epoch=1), ("player", "scheduler")),
        ("sched/in", Cancel(id="player/17/3"), ("player", "scheduler")),
        ("sched/in", Settled(origin="player", incarnation=1, ids=[]), ("player", "scheduler")),
        ("sched/in", DELEGATE, ("s1", "scheduler")),
        ("sched/in", CREDIT, ("s1", "scheduler")),
        ("sched/in", Operate(replica="s1", action="drain"), ("an origin", "scheduler")),
        ("replica/s1/in", ASSIGN, ("scheduler", "s1")),
        ("replica/s1/entry", Entry(request=REQUEST), ("player", "s1")),
        ("replica/s1/entry", Repair(id="player/17/3", attempt=1, sequence=2), ("player", "s1")),
        (
            "replica/s1/gone",
            Gone(source="s1", incarnation=1, connection=1),
            ("broker", "scheduler"),
        ),
        ("origin/player/in", FRAME, ("s1", "player")),
        (
            "origin/player/in",
            Accepted(id="x", epoch=1, submission=1, capability="decode"),
            ("scheduler", "player"),
        ),
        (
            "origin/player/in",
            Rejected(id="x", submission=1, code=Code.QUEUE_FULL),
            ("scheduler", "player"),
        ),
        (
            "origin/player/gone",
            Gone(source="player", incarnation=1, connection=1),
            ("broker", "scheduler"),
        ),
    ],
)
def test_sender_and_receiver(topic: str, message: Message, expected: tuple[str, str]) -> None:
    assert who(topic, plain(message)) == expected


def test_retained_topics_are_for_all() -> None:
    assert who("replica/s1/reg", {"type": "registration"}) == ("s1", "all")
    assert who("sched/state", {"type": "scheduler_state"}) == ("scheduler", "all")
    assert who("event/s1", {}) == ("s1", "observers")


def test_a_line_tells_the_request_and_why() -> None:
    line = story_line("12:00:00.000", "sched/in", plain(DELEGATE))

    assert line.startswith("12:00:00.000          s1 → scheduler  delegate        player/3 ")
    assert "capability=decode prompt_tokens=5 max_tokens=8" in line
    assert "reason=too_long min_rung=decode.heavy" in line


def test_foreign_text_cannot_steer_the_terminal() -> None:
    line = story_line("t", "sched/in", {"type": "\x1b[31m", "detail": "a\nb\x07", "id": "x\x1b"})

    assert line.isprintable()


def test_long_values_are_cut_and_long_lists_counted() -> None:
    text = essentials({"type": "frame", "tokens": list(range(100)), "detail": "x" * 500})

    assert "tokens=[100]" in text
    assert len(text) < 150


def test_events_name_their_source() -> None:
    line = event_line("t", {"source": "s1", "event": {"type": "attempt.started", "id": "p/1/2"}})

    assert line.split() == ["t", "s1", "·", "attempt.started", "p/2"]


def test_an_id_of_another_form_is_left_as_it_is() -> None:
    assert short_id("player/17/3") == "player/3"
    assert short_id("3") == "3"
