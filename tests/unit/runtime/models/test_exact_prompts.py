from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from anyserve.runtime.models.prompts import PromptMaker, load_sentences
from anyserve.runtime.models.tokenizers import TextTokenizer


@pytest.fixture(scope="module")
def maker(tokenizer_folder: Path) -> PromptMaker:
    return PromptMaker(TextTokenizer(tokenizer_folder))


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 700)), max_size=5))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_a_prompt_has_exactly_the_tokens_asked_for(
    maker: PromptMaker, segments: list[tuple[int, int]]
) -> None:
    assert len(maker.materialise(segments)) == sum(length for _, length in segments)


def test_equal_segments_are_equal_wherever_they_stand(maker: PromptMaker) -> None:
    shared = (99, 120)
    first = maker.materialise([shared, (1, 50)])
    second = maker.materialise([shared, (2, 70)])

    assert first[:120] == second[:120]
    assert first[120:160] != second[120:160]
    assert maker.segment(99, 40) == maker.segment(99, 120)[:40]


def test_different_segments_differ_within_one_kv_block(maker: PromptMaker) -> None:
    heads = {tuple(maker.segment(number, 16)) for number in range(2000)}

    assert len(heads) == 2000


def test_a_prompt_reads_as_sentences(maker: PromptMaker, tokenizer_folder: Path) -> None:
    text = TextTokenizer(tokenizer_folder).decode(maker.segment(5, 300))

    assert any(sentence in text for sentence in load_sentences())


def test_an_encoders_marks_are_inside_the_count(tmp_path: Path) -> None:
    words = {word.strip(".,") for sentence in load_sentences() for word in sentence.split()}
    vocab = {token: i for i, token in enumerate(["[CLS]", "[SEP]", "[UNK]", *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    tokenizer.enable_truncation(max_length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    ids = PromptMaker(TextTokenizer(tmp_path)).materialise([(7, 20), (8, 12)])

    assert len(ids) == 32
    assert (ids[0], ids[-1]) == (0, 1)
    assert not {0, 1} & set(ids[1:-1])
