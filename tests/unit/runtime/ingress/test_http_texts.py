"""Tokens become text: stops across frames, calls of tools, log probabilities."""

from __future__ import annotations

import itertools
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyserve.core.messages import Frame
from anyserve.runtime.engines.base import TokenLogprob
from anyserve.runtime.ingress.codecs import ByteCodec
from anyserve.runtime.ingress.openai.shapes import ChatShape, CompletionShape, Usage
from anyserve.runtime.ingress.openai.texts import ChoiceText, Piece, TextRules
from anyserve.runtime.ingress.openai.tools import ToolReader

CALL = '<tool_call>\n{"name": "look", "arguments": {"where": "Paris"}}\n</tool_call>'


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in itertools.pairwise(places)]


def read(parts: list[str], rules: TextRules) -> tuple[str, ChoiceText]:
    """The text given out, piece by piece."""
    choice = ChoiceText(ByteCodec(), rules)
    given_out = [choice.push(list(part.encode())).text for part in parts]
    given_out.append(choice.finish().text)
    assert "".join(given_out) == choice.whole.text
    return choice.whole.text, choice


@given(
    before=st.text(max_size=20),
    stop=st.text(min_size=1, max_size=4),
    after=st.text(max_size=10),
    cuts=st.lists(st.integers(0, 100), max_size=6),
)
def test_text_ends_before_the_first_stop_wherever_frames_are_cut(
    before: str, stop: str, after: str, cuts: list[int]
) -> None:
    whole = before + stop + after
    text, choice = read(pieces(whole, cuts), TextRules(stops=[stop]))
    assert text == whole[: whole.index(stop)]
    assert choice.stopped


@given(text=st.text(max_size=40), cuts=st.lists(st.integers(0, 100), max_size=6))
def test_text_without_a_stop_comes_whole(text: str, cuts: list[int]) -> None:
    got, choice = read(pieces(text, cuts), TextRules(stops=["\N{BOMB}never"]))
    assert (got, choice.stopped) == (text, False)


def test_stop_token_is_not_shown_and_nothing_after_it() -> None:
    choice = ChoiceText(ByteCodec(), TextRules(stop_ids=frozenset({ord("!")})))
    first = choice.push(list(b"ab!cd"), [TokenLogprob(token, -0.5) for token in b"ab!cd"])
    assert (first.text, len(first.logprobs)) == ("ab", 2)
    assert choice.stopped
    assert not choice.push(list(b"more"))
    assert choice.finish().text == ""


def test_log_probabilities_come_with_their_frames() -> None:
    choice = ChoiceText(ByteCodec(), TextRules(logprobs=True))
    data = msgspec.Raw(b'{"logprobs":[[97,-0.25,[[97,-0.25],[98,-1.5]]]]}')
    frame = Frame(
        id="o/1/1", attempt=1, submission=1, replica="r", incarnation=1, sequence=0,
        tokens=[97], data=data,
    )  # fmt: skip
    (one,) = choice.take(frame).logprobs
    assert (one.token_id, one.logprob, one.top) == (97, -0.25, [(97, -0.25), (98, -1.5)])


@given(cuts=st.lists(st.integers(0, 200), max_size=8), before=st.sampled_from(["", "Well, "]))
def test_calls_of_tools_are_found_wherever_the_text_is_cut(cuts: list[int], before: str) -> None:
    two = f"{before}{CALL}{CALL.replace('look', 'walk')}"
    _, choice = read(pieces(two, cuts), TextRules(tools=True))
    assert choice.whole.text == before
    assert [(call.index, call.name) for call in choice.whole.calls] == [(0, "look"), (1, "walk")]
    assert json.loads(choice.whole.calls[0].arguments) == {"where": "Paris"}


@pytest.mark.parametrize(
    "text", ["<tool_call>no json</tool_call> more", "<tool_call>[1]</tool_call>", "a <tool_ca", "<"]
)
def test_what_only_looks_like_a_call_is_text(text: str) -> None:
    got, choice = read(pieces(text, [3, 9]), TextRules(tools=True))
    assert (got, choice.whole.calls) == (text, [])


def test_call_without_its_end_counts_when_it_is_whole() -> None:
    reader, piece = ToolReader(), Piece()
    reader.push('<tool_call>[{"name": "a", "arguments": "{}"}, {"name": "b"}]', piece)
    assert not piece.calls
    reader.finish(piece)
    assert [(call.name, call.arguments) for call in piece.calls] == [("a", "{}"), ("b", "{}")]


def event(data: bytes) -> dict[str, object]:
    assert data.startswith(b"data: ")
    assert data.endswith(b"\n\n")
    found: dict[str, object] = json.loads(data[6:])
    return found


def test_chunks_are_json_and_only_the_first_names_the_role() -> None:
    shape = ChatShape(named="chatcmpl-1", model='m"', created=7, codec=ByteCodec(), stream=True)
    first, second = (event(shape.chunk(0, Piece('a "b"\n'))) for _ in range(2))
    assert first["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": 'a "b"\n'},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    assert second["choices"][0]["delta"] == {"content": 'a "b"\n'}  # type: ignore[index]
    assert (first["model"], first["object"]) == ('m"', "chat.completion.chunk")
    assert "usage" not in first
    shape.with_usage()
    last = event(shape.last(0, "stop"))
    assert last["usage"] is None
    usage = event(shape.usage(Usage(prompt_tokens=0, completion_tokens=2, total_tokens=2)))
    assert (usage["choices"], usage["usage"]) == (
        [],
        {"prompt_tokens": 0, "completion_tokens": 2, "total_tokens": 2},
    )


def test_choice_that_ends_without_a_word_is_still_a_message() -> None:
    shape = ChatShape(named="c", model="m", created=7, codec=ByteCodec(), stream=True)
    end = event(shape.last(2, "stop"))["choices"][0]  # type: ignore[index]
    assert end["delta"] == {"role": "assistant", "content": ""}


def test_calls_in_chunks_have_ids_and_arguments_as_text() -> None:
    shape = ChatShape(named="chatcmpl-9", model="m", created=7, codec=ByteCodec(), stream=True)
    choice = ChoiceText(ByteCodec(), TextRules(tools=True))
    piece = choice.push(list(CALL.encode()))
    delta = event(shape.chunk(0, piece))["choices"][0]["delta"]  # type: ignore[index]
    (call,) = delta["tool_calls"]
    assert (call["index"], call["id"], call["type"]) == (0, "call_9-0-0", "function")
    assert json.loads(call["function"]["arguments"]) == {"where": "Paris"}


def test_tables_of_completions_go_on_where_the_last_chunk_ended() -> None:
    shape = CompletionShape(named="c", model="m", created=7, codec=ByteCodec(), top=1)
    one = TokenLogprob(97, float("-inf"), [(98, -0.5), (97, float("-inf"))])
    for offset in (0, 2):
        table = event(shape.chunk(0, Piece("aa", [one, one])))["choices"][0]["logprobs"]  # type: ignore[index]
        assert table["tokens"] == ["a", "a"]
        assert table["token_logprobs"] == [-9999.0, -9999.0]
        assert table["top_logprobs"] == [{"b": -0.5}, {"b": -0.5}]
        assert table["text_offset"] == [offset, offset + 1]
