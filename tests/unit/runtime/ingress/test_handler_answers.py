from __future__ import annotations

from typing import Any

import msgspec
import pytest

from anyserve.core.messages import Frame
from anyserve.runtime.answers import AnswerData, Piece
from anyserve.runtime.ingress import handlers
from anyserve.runtime.ingress.handlers import HandlerAnswer, checked_json
from anyserve.runtime.ingress.meanings import RefusedError


def frame(value: Any, *, item: bool) -> Frame:
    piece = Piece(payload=msgspec.Raw(msgspec.json.encode(value)), item=item)
    return Frame(
        id="o/1/1",
        attempt=1,
        submission=1,
        replica="a1",
        incarnation=1,
        sequence=0,
        data=msgspec.Raw(msgspec.json.encode(AnswerData(result=piece))),
    )


async def took(answer: HandlerAnswer, *frames: Frame) -> list[bytes]:
    return [part async for part in answer.take(frames)]


async def test_items_are_kept_only_where_the_whole_is_wanted() -> None:
    items = [frame(number, item=True) for number in range(3)]
    kept, passed = (HandlerAnswer(None, keep_items=keep) for keep in (True, False))

    assert await took(kept, *items) == await took(passed, *items) == [b"0", b"1", b"2"]
    assert kept.whole(None) == b"[0,1,2]"
    assert passed.parts == []


async def test_a_plain_result_is_itself() -> None:
    answer = HandlerAnswer(None, keep_items=False)

    await took(answer, frame({"x": 1}, item=False))

    assert (answer.items, answer.whole(None)) == (False, b'{"x":1}')


async def test_nothing_yielded_is_an_empty_list() -> None:
    assert HandlerAnswer(None, keep_items=True).whole(None) == b"[]"


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "MAX_KEPT_BYTES", 10)
    answer = HandlerAnswer(None, keep_items=True)

    with pytest.raises(RefusedError, match="as a stream") as caught:
        await took(answer, *(frame("xxxx", item=True) for _ in range(3)))

    assert caught.value.code == "answer_too_large"


@pytest.mark.parametrize(("given", "read"), [(b"", b"null"), (b" 1", b" 1"), (b"{}", b"{}")])
def test_a_payload_is_json_or_nothing(given: bytes, read: bytes) -> None:
    assert checked_json(given, "the body") == read


@pytest.mark.parametrize("given", [b"{", b"nope", b"1 2", b"[" * 100_000])
def test_what_is_no_json_is_refused(given: bytes) -> None:
    with pytest.raises(RefusedError, match="the body is not JSON"):
        checked_json(given, "the body")
