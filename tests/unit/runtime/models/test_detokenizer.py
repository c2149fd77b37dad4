from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyserve.runtime.models.tokenizers import TextTokenizer


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> TextTokenizer:
    return TextTokenizer(tokenizer_folder)


def streamed(
    tokenizer: TextTokenizer, text: str, size: int = 1, stop: list[str] | None = None
) -> list[str]:
    ids = tokenizer.encode(text)
    stream = tokenizer.detokenizer(stop or [])
    parts = [stream.push(ids[at : at + size]) for at in range(0, len(ids), size)]
    return [*parts, stream.finish()]


@given(st.text(max_size=40), st.integers(1, 5))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_the_parts_make_the_whole(tokenizer: TextTokenizer, text: str, size: int) -> None:
    whole = tokenizer.decode(tokenizer.encode(text))

    assert "".join(streamed(tokenizer, text, size)) == whole


def test_no_part_ends_within_a_character(tokenizer: TextTokenizer) -> None:
    parts = streamed(tokenizer, "tide 😀 日本 é")

    assert len(tokenizer.encode("😀")) > 1
    assert not any("\N{REPLACEMENT CHARACTER}" in part for part in parts)


def test_a_stream_that_ends_within_a_character_shows_it_at_the_end(
    tokenizer: TextTokenizer,
) -> None:
    stream = tokenizer.detokenizer()

    assert stream.push(tokenizer.encode("😀")[:-1]) == ""
    assert "\N{REPLACEMENT CHARACTER}" in stream.finish()


@pytest.mark.parametrize("size", [1, 2, 50])
def test_a_stop_string_and_what_follows_never_come_out(tokenizer: TextTokenizer, size: int) -> None:
    text = "The river leans, and once it leans it digs."

    assert "".join(streamed(tokenizer, text, size, ["it digs", "once it"])) == (
        "The river leans, and "
    )


def test_what_only_looked_like_a_stop_string_comes_out_in_the_end(
    tokenizer: TextTokenizer,
) -> None:
    assert "".join(streamed(tokenizer, "Ask ten bakers wh", 1, ["why and"])) == "Ask ten bakers wh"


def test_a_stream_knows_that_it_was_stopped(tokenizer: TextTokenizer) -> None:
    stream = tokenizer.detokenizer(["salt"])
    stream.push(tokenizer.encode("flour, water, salt and"))

    assert stream.stopped
    assert stream.push(tokenizer.encode(" a spoon")) == ""
    assert stream.finish() == ""
