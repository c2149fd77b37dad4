"""From measured steps to a step-time model: non-negative least squares on relative errors.

Each form of the formula is a sum of features with non-negative coefficients. It is fitted to the
steps for fitting, judged by the steps held out, and the best form wins; a simpler one wins a tie.
Errors are relative to what is expected of a step, in rounds, and not to what it took: that would
make a slow step count less than a fast one, and the formula too fast where steps scatter. Where
others use the machine, weights follow Huber: a step that they made slow counts little.

Sources: Lawson and Hanson, Solving Least Squares Problems (1974), ch. 23, for non-negative least
squares by active sets, here on the normal equations; Huber, Robust Estimation of a Location
Parameter (1964), for the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from anyserve.core.engine.profile import FitQuality, MeasuredRanges, Range
from anyserve.core.engine.step_time import StepTimeModel, StepWork

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

QUANTILES: Final = 21
_TIE: Final = 0.97
"""A form with more terms has to be better by this factor, and by `_LEAST_GAIN`."""
_LEAST_GAIN: Final = 0.001
_HUBER: Final = 1.5
_NEVER: Final = 1e9
_ROUNDS: Final = 12
_FAR: Final = 8.0
"""A step is not expected to take less than this part of what it took."""
_FLAT: Final = 1e-12
_FEWEST: Final = 12
_KNOTS: Final = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Sample(NamedTuple):
    """A measured step."""

    work: StepWork
    time_ps: int
    held_out: bool = False
    """Not for the fit, but to judge it by."""
    new_shape: bool = False
    """No step before had as many tokens, and the engine's library had to prepare for them."""


@dataclass(frozen=True, slots=True)
class Form:
    """One shape of the formula: its features, and the model that their coefficients make."""

    name: str
    features: Callable[[StepWork], list[float]]
    model: Callable[[Sequence[int]], StepTimeModel]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The best form, and how good it is."""

    step_time: StepTimeModel
    quality: FitQuality
    residuals: tuple[float, ...]
    ranges: MeasuredRanges
    shape_ps: int
    """How much longer steps with a new number of tokens take, for each of their tokens."""


def fit_step_time(
    samples: Sequence[Sample], graph_sizes: tuple[int, ...] = (), *, shared: bool = True
) -> Fitted:
    """Fit every form and keep the best.

    Args:
        samples: Measured steps, some of them held out.
        graph_sizes: Batch sizes that CUDA graphs were captured for, ascending.
        shared: Whether others use the machine: then slow steps may be their doing. Else every step
            counts, and the formula says what steps take on average.

    Raises:
        ValueError: Too few steps for a fit, or none held out.
    """
    used = [one for one in samples if not one.held_out]
    held_out = [one for one in samples if one.held_out]
    if len(used) < _FEWEST or not held_out:
        raise ValueError(f"{len(used)} steps to fit and {len(held_out)} to judge by are too few")
    errors: dict[str, float] = {}
    best: tuple[float, str, _Found] | None = None
    for form in _forms(used, graph_sizes):
        *values, shape_ps = _coefficients(form, used, _HUBER if shared else _NEVER)
        found = _Found(form.model(values), shape_ps)
        error = _mean_error(found, held_out)
        errors[form.name] = round(error, 5)
        if best is None or error < min(best[0] * _TIE, best[0] - _LEAST_GAIN):
            best = (error, form.name, found)
    assert best is not None
    _, name, found = best
    errors.pop(name)
    return Fitted(
        step_time=found.model,
        quality=_quality(name, found, used, held_out, errors),
        residuals=_quantiles(found, samples),
        ranges=_ranges(samples),
        shape_ps=found.shape_ps,
    )


def relative_errors(
    model: StepTimeModel, samples: Sequence[Sample], shape_ps: int = 0
) -> list[float]:
    """Predicted / measured - 1, step by step."""
    return _Found(model, shape_ps).errors(samples)


class _Found(NamedTuple):
    """What a form became."""

    model: StepTimeModel
    shape_ps: int

    def predict_ps(self, sample: Sample) -> int:
        return self.model.step_ps(sample.work) + self.shape_ps * _new_tokens(sample)

    def errors(self, samples: Sequence[Sample]) -> list[float]:
        return [self.predict_ps(one) / one.time_ps - 1 for one in samples]


def _new_tokens(sample: Sample) -> int:
    """The tokens of a step that had a new number of them; 0 for others."""
    return sample.work.prefill_tokens + sample.work.decodes if sample.new_shape else 0


# --- forms -------------------------------------------------------------------------------------


def _forms(used: Sequence[Sample], graph_sizes: tuple[int, ...]) -> list[Form]:
    """From few terms to many."""
    most = max(one.work.prefill_tokens + one.work.decodes for one in used)
    forms = [_linear("linear")]
    if graph_sizes:
        forms.append(_linear("graphs", graph_sizes))
    forms += [_roofline(knot) for knot in _KNOTS if 2 <= knot < most]  # noqa: PLR2004
    knots = {*_KNOTS, most}
    for largest in graph_sizes[-1:]:  # beyond it each kernel is launched by itself
        knots |= {largest, largest + 1}
    forms.append(_table(sorted(knot for knot in knots if knot <= most)))
    return forms


def _common(work: StepWork) -> list[float]:
    return [1.0, work.prefills, work.context, work.attention / 2]


def _linear(name: str, graph_sizes: tuple[int, ...] = ()) -> Form:
    """A + b*P + c*D + d*K + e*A, and a cost per chunk."""
    shape = StepTimeModel(base_ps=0, decode_ps=1, graph_sizes=graph_sizes).formula()

    def features(work: StepWork) -> list[float]:
        padded = shape.fixed_ps(work.prefill_tokens, 0, work.decodes)
        return [*_common(work), work.prefill_tokens, padded]

    def model(values: Sequence[int]) -> StepTimeModel:
        base, prompt, context, attention, prefill, decode = values
        return StepTimeModel(
            base_ps=base, prompt_ps=prompt, context_ps=context, attention_ps=attention,
            prefill_ps=prefill, decode_ps=decode, graph_sizes=graph_sizes,
        )  # fmt: skip

    return Form(name, features, model)


def _roofline(knee: int) -> Form:
    """A + f * max(knee, P + D) + d*K + e*A: below the knee, reading the weights takes the time."""

    def features(work: StepWork) -> list[float]:
        return [*_common(work), max(knee, work.prefill_tokens + work.decodes)]

    def model(values: Sequence[int]) -> StepTimeModel:
        base, prompt, context, attention, token = values
        return StepTimeModel(
            base_ps=base, prompt_ps=prompt, context_ps=context, attention_ps=attention,
            prefill_ps=token, decode_ps=token, floor_ps=token * knee,
        )  # fmt: skip

    return Form(f"roofline {knee}", features, model)


def _table(knots: Sequence[int]) -> Form:
    """A + T(P + D) + c*D + d*K + e*A with T growing and linear between the knots."""
    ramps = list(pairwise(knots))

    def features(work: StepWork) -> list[float]:
        tokens = work.prefill_tokens + work.decodes
        climbed = [float(min(max(tokens - low, 0), high - low)) for low, high in ramps]
        return [*_common(work), work.decodes, *climbed]

    def model(values: Sequence[int]) -> StepTimeModel:
        base, prompt, context, attention, decode, *slopes = values
        heights = [0]
        for (low, high), slope in zip(ramps, slopes, strict=True):
            heights.append(heights[-1] + slope * (high - low))
        return StepTimeModel(
            base_ps=base, prompt_ps=prompt, context_ps=context, attention_ps=attention,
            decode_ps=decode, table=tuple(zip(knots, heights, strict=True)),
        )  # fmt: skip

    return Form("table", features, model)


# --- least squares -----------------------------------------------------------------------------


def _coefficients(form: Form, samples: Sequence[Sample], outlier: float) -> list[int]:
    """Whole picoseconds per unit of each feature, and per token where their number is new.
    `outlier`: residuals beyond so many deviations count less."""
    import numpy as np  # noqa: PLC0415 - only where something is fitted

    times = np.array([float(one.time_ps) for one in samples])
    features = np.array([[*form.features(one.work), _new_tokens(one)] for one in samples])
    scale = np.maximum((np.abs(features) / times[:, None]).max(axis=0), 1e-300)
    features = features / scale  # they differ by many powers of ten
    weights = _evenly(samples)
    balance = weights.copy()
    expected = times
    for _ in range(_ROUNDS):
        rows = features / expected[:, None]
        solution = _non_negative(rows, times / expected, balance)
        residuals = np.abs(times / expected - rows @ solution)
        bound = outlier * max(float(np.median(residuals)) * 1.4826, 1e-4)
        balance = weights * np.minimum(1.0, bound / np.maximum(residuals, 1e-12))
        expected = np.maximum(features @ solution, times / _FAR)
    return [round(float(value)) for value in solution / scale]


def _evenly(samples: Sequence[Sample]) -> Array:
    """Weights that let rare kinds of steps count as much as frequent ones, up to a bound."""
    import numpy as np  # noqa: PLC0415

    def kind(work: StepWork) -> tuple[int, int, int]:
        return (
            work.prefill_tokens.bit_length(),
            work.decodes.bit_length(),
            work.context.bit_length() // 2,
        )

    kinds = [kind(one.work) for one in samples]
    counts: dict[tuple[int, int, int], int] = {}
    for one in kinds:
        counts[one] = counts.get(one, 0) + 1
    weights = np.array([1.0 / counts[one] ** 0.5 for one in kinds])
    return np.asarray(weights / weights.mean())


def _non_negative(rows: Array, wanted: Array, weights: Array) -> Array:
    """The x >= 0 with least sum of weights * (rows @ x - wanted)^2."""
    import numpy as np  # noqa: PLC0415

    weighted = rows * weights[:, None]
    gram = weighted.T @ rows
    target = weighted.T @ wanted
    x = np.zeros(len(target))
    free: list[int] = []
    for _ in range(3 * len(x)):
        gradient = target - gram @ x
        gradient[free] = 0.0
        place = int(np.argmax(gradient))
        if gradient[place] <= _FLAT * target.max():
            break
        free.append(place)
        x = _solve_free(gram, target, x, free)
    return x


def _solve_free(gram: Array, target: Array, x: Array, free: list[int]) -> Array:
    """The least squares over the `free` ones; those that would turn negative leave it, at zero."""
    import numpy as np  # noqa: PLC0415

    while True:
        solution = np.linalg.lstsq(gram[np.ix_(free, free)], target[free], rcond=None)[0]
        if solution.min() > 0:
            found = np.zeros(len(x))
            found[free] = solution
            return found
        before = x[free]
        shrinks = solution <= 0
        way = (before[shrinks] / np.maximum(before[shrinks] - solution[shrinks], 1e-300)).min()
        x = x.copy()
        x[free] = before + way * (solution - before)
        free[:] = [place for place in free if x[place] > _FLAT]
        if not free:
            return np.zeros(len(x))


# --- judging -----------------------------------------------------------------------------------


def _mean_error(found: _Found, samples: Sequence[Sample]) -> float:
    """Mean of |predicted / measured - 1| without the worst twentieth, rare kinds of steps weighted
    up as in the fit."""
    errors = (abs(one) for one in found.errors(samples))
    weighted = sorted(zip(errors, _evenly(samples), strict=True))
    kept = weighted[: max(1, len(weighted) * 19 // 20)]
    return float(sum(error * weight for error, weight in kept) / sum(weight for _, weight in kept))


def _quality(
    name: str,
    found: _Found,
    used: Sequence[Sample],
    held_out: Sequence[Sample],
    others: dict[str, float],
) -> FitQuality:
    errors = sorted(abs(one) for one in found.errors(held_out))
    times = [one.time_ps for one in held_out]
    predicted = [found.predict_ps(one) for one in held_out]
    mean = sum(times) / len(times)
    spread = sum((one - mean) ** 2 for one in times)
    left = sum((one - other) ** 2 for one, other in zip(times, predicted, strict=True))
    return FitQuality(
        form=name,
        steps=len(used),
        held_out_steps=len(held_out),
        r2=round(1 - left / spread, 5) if spread else 0.0,
        median_error=round(errors[len(errors) // 2], 5),
        p90_error=round(errors[min(len(errors) - 1, len(errors) * 9 // 10)], 5),
        mean_bias=round(sum(predicted) / sum(times) - 1, 5),
        others=others,
    )


def _quantiles(found: _Found, samples: Sequence[Sample]) -> tuple[float, ...]:
    """Of measured / predicted - 1, at evenly spaced probabilities; the extremes are the 0.5% and
    99.5% ones, so that one accident does not become the rule."""
    errors = sorted(one.time_ps / max(1, found.predict_ps(one)) - 1 for one in samples)
    last = len(errors) - 1
    at = [min(max(place / (QUANTILES - 1), 0.005), 0.995) for place in range(QUANTILES)]
    return tuple(round(errors[round(last * one)], 5) for one in at)


def _ranges(samples: Sequence[Sample]) -> MeasuredRanges:
    def of(values: list[Any]) -> Range:
        return Range(min(values), max(values))

    return MeasuredRanges(
        prefill_tokens=of([one.work.prefill_tokens for one in samples]),
        decodes=of([one.work.decodes for one in samples]),
        context=of([one.work.context for one in samples]),
    )
