"""Names that would break a topic or a state machine are recognised before they get there."""

from __future__ import annotations

from typing import Any

import pytest

from anyserve.core.effects import Inbox, Send
from anyserve.core.messages import (
    Assign,
    Cancel,
    Gone,
    Held,
    Holding,
    KeepAlive,
    Request,
    SchedulerState,
    Settled,
    Submit,
)
from anyserve.runtime.wire import is_lazy, is_sound

GOOD = "o-1/1795467261377/22"
BAD = ["", "x", "o/1", "o/1/2/3", "o/1/-2", "o/x/2", "+/1/2", "#/1/2", "O/1/2", "o/1/٣", "o/1/2\n"]


def request(request_id: str) -> Request:
    return Request(
        id=request_id, asked="d", capability="d", prompt_tokens=1, max_tokens=1, offered_ns=1
    )


def messages(request_id: str) -> list[Any]:
    """All the places where a request's id stands."""
    held = Held(id=request_id, attempt=1, submission=1, started=True, entered=False)
    return [
        Cancel(id=request_id),
        Submit(request=request(request_id), epoch=1),
        Assign(
            request=request(request_id), attempt=1, submission=1, incarnation=1, epoch=1, ordinal=1
        ),
        Settled(origin="o", incarnation=1, ids=[GOOD, request_id]),
        Holding(replica="s1", incarnation=1, epoch=1, held=[held]),
        KeepAlive(replica="s1", incarnation=1, held=[(GOOD, 1), (request_id, 1)]),
    ]


@pytest.mark.parametrize("message", messages(GOOD), ids=lambda one: type(one).__name__)
def test_ids_as_origins_make_them_are_sound(message: Any) -> None:
    assert is_sound(message)


@pytest.mark.parametrize("request_id", BAD, ids=ascii)
def test_any_other_id_is_not(request_id: str) -> None:
    assert [is_sound(message) for message in messages(request_id)] == [False] * 6


@pytest.mark.parametrize("name", ["", "+", "#", "a/b", "S1", "x" * 33, "s1\n"])
def test_names_of_processes_fit_into_topics(name: str) -> None:
    assert is_sound(Gone(source="s1", incarnation=1, connection=1))
    assert not is_sound(Gone(source=name, incarnation=1, connection=1))
    assert not is_sound(Settled(origin=name, incarnation=1, ids=[]))
    assert not is_sound(KeepAlive(replica=name, incarnation=1, held=[]))


def test_messages_without_names_are_sound() -> None:
    state = SchedulerState(
        epoch=1, incarnation=1, ladder={}, capabilities=["decode"], delegation_limit=1
    )
    assert is_sound(state)


def test_settlements_and_what_core_calls_lazy_wait_for_company() -> None:
    settled = Settled(origin="o", incarnation=1, ids=[GOOD])
    cancel = Cancel(id=GOOD)

    assert is_lazy(Send(Inbox.SCHEDULER, "", settled))
    assert is_lazy(Send(Inbox.SCHEDULER, "", cancel, lazy=True))
    assert not is_lazy(Send(Inbox.SCHEDULER, "", cancel))
