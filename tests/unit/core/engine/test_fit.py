from __future__ import annotations

import random

import pytest

from anyserve.core.engine.fit import Sample, fit_step_time, relative_errors
from anyserve.core.engine.step_time import StepTimeModel, StepWork

LINEAR = StepTimeModel(
    base_ps=20_000_000_000,
    prefill_ps=400_000_000,
    decode_ps=900_000_000,
    prompt_ps=700_000_000,
    context_ps=5_000_000,
    attention_ps=200_000,
)
ROOFLINE = StepTimeModel(
    base_ps=200_000_000,
    prefill_ps=20_000_000,
    decode_ps=20_000_000,
    floor_ps=128 * 20_000_000,
    context_ps=40_000,
    attention_ps=30,
)


def works(rng: random.Random, count: int, most: int) -> list[StepWork]:
    found = []
    for number in range(count):
        decodes = rng.choice([0, 1, 2, 4, 8, 16]) if number % 3 else rng.randint(1, 16)
        context = sum(rng.randint(10, 900) for _ in range(decodes))
        chunk = rng.choice([0, 0, rng.randint(1, most)]) if decodes else rng.randint(1, most)
        before = rng.choice([0, rng.randint(0, 1500)])
        found.append(
            StepWork(chunk, int(chunk > 0), decodes, context, chunk * (2 * before + chunk))
        )
    return found


def tokens(work: StepWork) -> int:
    return work.prefill_tokens + work.decodes


def samples(truth: StepTimeModel, noise: float, outliers: float = 0.0) -> list[Sample]:
    rng = random.Random(3)
    found = []
    for number, work in enumerate(works(rng, 700, 256)):
        factor = 1 + rng.gauss(0, noise)
        if rng.random() < outliers:
            factor *= rng.uniform(1.5, 4)
        found.append(Sample(work, round(truth.step_ps(work) * factor), number % 3 == 0))
    return found


def test_coefficients_are_found_again_where_nothing_disturbs() -> None:
    fitted = fit_step_time(samples(LINEAR, 0.0))

    assert fitted.quality.form == "linear"
    for name in ("base_ps", "prefill_ps", "decode_ps", "prompt_ps", "context_ps", "attention_ps"):
        assert getattr(fitted.step_time, name) == pytest.approx(getattr(LINEAR, name), rel=0.002)


def test_slow_steps_of_a_busy_machine_move_the_fit_little() -> None:
    fitted = fit_step_time(samples(LINEAR, 0.02, outliers=0.15))

    clean = samples(LINEAR, 0.0)
    errors = [abs(one) for one in relative_errors(fitted.step_time, clean)]
    assert sum(errors) / len(errors) < 0.03
    assert fitted.quality.median_error < 0.05


def test_where_nobody_else_computes_scattered_steps_are_met_on_average() -> None:
    rng = random.Random(5)
    found = [
        Sample(work, round(LINEAR.step_ps(work) * rng.lognormvariate(0, 0.5)), number % 3 == 0)
        for number, work in enumerate(works(rng, 3000, 256))
    ]

    alone = fit_step_time(found, shared=False).quality
    beside_others = fit_step_time(found, shared=True).quality

    assert alone.mean_bias == pytest.approx(0.0, abs=0.03)
    assert beside_others.mean_bias < alone.mean_bias - 0.02


def test_the_time_for_a_new_number_of_tokens_is_told_from_that_for_tokens() -> None:
    found = [
        one._replace(time_ps=one.time_ps + 50_000_000 * new * tokens(one.work), new_shape=new)
        for number, one in enumerate(samples(LINEAR, 0.01))
        for new in [number % 5 == 0 and one.work.prefill_tokens > 0]
    ]
    fitted = fit_step_time(found)

    assert fitted.shape_ps == pytest.approx(50_000_000, rel=0.05)
    assert fitted.step_time.prefill_ps == pytest.approx(LINEAR.prefill_ps, rel=0.02)


def test_the_form_is_chosen_by_what_was_held_out() -> None:
    fitted = fit_step_time(samples(ROOFLINE, 0.01))

    assert fitted.quality.form == "roofline 128"
    assert fitted.quality.others["linear"] > 2 * fitted.quality.median_error
    assert fitted.step_time.floor_ps == pytest.approx(ROOFLINE.floor_ps, rel=0.03)


def test_a_staircase_of_graph_sizes_is_a_form_of_its_own() -> None:
    sizes = (1, 2, 4, 8, 16)
    truth = StepTimeModel(
        base_ps=5_000_000, decode_ps=900_000, prefill_ps=10_000, graph_sizes=sizes
    )

    fitted = fit_step_time(samples(truth, 0.0), sizes)

    assert fitted.quality.form == "graphs"
    assert fitted.step_time.graph_sizes == sizes


def test_steps_beyond_the_largest_graph_cost_more_at_once() -> None:
    """Without a graph the host sends each kernel off by itself."""

    def truth(work: StepWork) -> int:
        eager = 12_000_000_000 if tokens(work) > 32 else 0
        return 8_000_000_000 + eager + 20_000_000 * tokens(work)

    found = [
        Sample(work, truth(work), number % 3 == 0)
        for number, work in enumerate(works(random.Random(3), 900, 64))
    ]

    fitted = fit_step_time(found, (1, 2, 4, 8, 16, 24, 32), shared=False)

    assert fitted.quality.form == "table"
    below, beyond = (fitted.step_time.step_ps(StepWork(size, 1)) for size in (32, 33))
    assert below == pytest.approx(8_640_000_000, rel=0.02)
    assert beyond == pytest.approx(20_660_000_000, rel=0.02)


def test_a_shape_that_is_no_formula_becomes_a_table() -> None:
    def truth(work: StepWork) -> int:
        tokens = work.prefill_tokens + work.decodes
        return 10_000_000 + (400_000 * tokens if tokens < 32 else 12_400_000 + 10_000 * tokens)

    rng = random.Random(5)
    found = [Sample(one, truth(one), n % 3 == 0) for n, one in enumerate(works(rng, 900, 256))]

    fitted = fit_step_time(found)

    assert fitted.quality.form == "table"
    assert fitted.quality.median_error < 0.03


def test_no_coefficient_is_negative_and_residuals_grow() -> None:
    fitted = fit_step_time(samples(LINEAR, 0.2))

    values = [value for value in vars_of(fitted.step_time).values() if isinstance(value, int)]
    assert min(values) >= 0
    assert list(fitted.residuals) == sorted(fitted.residuals)
    assert fitted.residuals[0] < 0 < fitted.residuals[-1]
    assert fitted.ranges.decodes is not None
    assert fitted.ranges.beyond(StepWork(decodes=17)) == ["decodes"]


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        fit_step_time(samples(LINEAR, 0.0)[:9])


def vars_of(model: StepTimeModel) -> dict[str, object]:
    return {name: getattr(model, name) for name in model.__struct_fields__}
