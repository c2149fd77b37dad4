from __future__ import annotations

import pytest

from anyserve.core.engine.step_time import StepTimeModel, StepWork, scaled_step_time

MODEL = StepTimeModel(
    base_ps=1_000_000,
    prefill_ps=10_000,
    decode_ps=5_000,
    context_ps=100,
    attention_ps=20,
)


def test_an_empty_step_costs_the_base() -> None:
    assert MODEL.step_ps(StepWork()) == 1_000_000


def test_prefill_costs_tokens_and_attention() -> None:
    # 1,000,000 + 10,000 * 8 + 20 * 8 * (4 + 8/2)
    work = StepWork(prefill_tokens=8, prefills=1, attention=8 * (2 * 4 + 8))
    assert MODEL.step_ps(work) == 1_081_280


def test_decode_costs_sequences_and_context() -> None:
    # 1,000,000 + 5,000 * 2 + 100 * (11 + 21)
    assert MODEL.step_ps(StepWork(decodes=2, context=32)) == 1_013_200


def test_a_prefill_in_two_chunks_reads_the_same_pairs_as_in_one() -> None:
    pure = StepTimeModel(base_ps=0, attention_ps=2_000)

    whole = pure.step_ps(StepWork(attention=100 * 100))
    halves = pure.step_ps(StepWork(attention=50 * 50)) + pure.step_ps(
        StepWork(attention=50 * (2 * 50 + 50))
    )

    assert whole == halves


def test_the_floor_is_under_the_work_on_tokens() -> None:
    roofline = StepTimeModel(base_ps=1, prefill_ps=10, decode_ps=10, floor_ps=100)

    assert roofline.step_ps(StepWork(decodes=4)) == 101
    assert roofline.step_ps(StepWork(decodes=10, prefill_tokens=5)) == 151


def test_a_table_is_linear_between_its_points_and_beyond_them() -> None:
    model = StepTimeModel(base_ps=0, table=((1, 100), (11, 200), (21, 600)))

    times = [model.step_ps(StepWork(decodes=tokens)) for tokens in (1, 6, 11, 16, 26)]

    assert times == [100, 150, 200, 400, 800]


def test_decodes_are_padded_to_captured_sizes_unless_something_is_prefilled() -> None:
    model = StepTimeModel(base_ps=0, decode_ps=1, graph_sizes=(1, 2, 4, 8))

    assert [model.step_ps(StepWork(decodes=size)) for size in (1, 3, 8, 9)] == [1, 4, 8, 9]
    assert model.step_ps(StepWork(decodes=3, prefill_tokens=1)) == 3


EVERY_TERM = StepTimeModel(
    base_ps=1_000_000,
    prefill_ps=10_000,
    decode_ps=5_000,
    context_ps=100,
    attention_ps=20,
    prompt_ps=700,
    floor_ps=40_000,
    table=((1, 0), (64, 90_000)),
    graph_sizes=(1, 2, 4),
)


@pytest.mark.parametrize(
    "work",
    [
        StepWork(),
        StepWork(decodes=3, context=300),
        StepWork(prefill_tokens=50, prefills=2, decodes=3, context=300, attention=2_600),
    ],
)
def test_a_scaled_model_takes_so_many_times_as_long_in_every_step(work: StepWork) -> None:
    assert EVERY_TERM.scaled(1.5).step_ps(work) == pytest.approx(
        1.5 * EVERY_TERM.step_ps(work), abs=2
    )
    assert scaled_step_time(EVERY_TERM, 1.0) is EVERY_TERM


def test_what_prompts_add_is_scaled_apart() -> None:
    plain = StepTimeModel(
        base_ps=10_000, prefill_ps=500, decode_ps=300, context_ps=8, attention_ps=2, prompt_ps=900
    )
    decodes = StepWork(decodes=3, context=300)
    both = StepWork(prefill_tokens=50, prefills=2, decodes=3, context=300, attention=2_600)
    scaled = plain.scaled(0.5, 4.0)

    alone_ps, with_prompts_ps = plain.step_ps(decodes), plain.step_ps(both)
    assert scaled.step_ps(decodes) == alone_ps // 2
    assert scaled.step_ps(both) == alone_ps // 2 + 2 * (with_prompts_ps - alone_ps)


def test_the_floor_under_prompts_is_the_memorys() -> None:
    """A GPU that reads its weights meanwhile: twice the arithmetic takes nothing, or the rest."""
    roofline = StepTimeModel(base_ps=1_000, prefill_ps=100, floor_ps=30_000)
    scaled = roofline.scaled(1.0, 2.0)

    assert scaled.step_ps(StepWork(prefill_tokens=100, prefills=1)) == 31_000
    assert scaled.step_ps(StepWork(prefill_tokens=200, prefills=1)) == 41_000


def test_what_a_table_grows_by_is_scaled_with_the_prompts() -> None:
    table = StepTimeModel(base_ps=1_000, table=((1, 4_000), (64, 130_000)))
    scaled = table.scaled(2.0, 3.0)

    assert scaled.step_ps(StepWork(decodes=1, context=9)) == 2 * (1_000 + 4_000)
    assert scaled.step_ps(StepWork(prefill_tokens=64, prefills=1)) == 2 * 5_000 + 6 * 126_000


class OfTokens:
    """A user's model, which knows no coefficients."""

    def step_ps(self, work: StepWork) -> int:
        return 1_000 * work.prefill_tokens + 1


def test_a_users_model_is_scaled_too() -> None:
    scaled = scaled_step_time(OfTokens(), 2.5)

    assert scaled.step_ps(StepWork(prefill_tokens=10)) == 25_002
    assert scaled_step_time(OfTokens(), 0.001).step_ps(StepWork()) == 1


class OfBoth:
    """A user's model of prompts and of decoding."""

    def step_ps(self, work: StepWork) -> int:
        return 9_000 + 1_000 * work.prefill_tokens + 200 * work.decodes + work.context


def test_of_a_users_model_prompts_add_what_the_step_would_not_take_without_them() -> None:
    scaled = scaled_step_time(OfBoth(), 0.5, 4.0)

    assert scaled.step_ps(StepWork(decodes=2, context=100)) == (9_000 + 400 + 100) // 2
    assert (
        scaled.step_ps(StepWork(prefill_tokens=6, prefills=1, decodes=2, context=100, attention=36))
        == (9_000 + 400 + 100) // 2 + 2 * 6_000
    )
