"""A calibration in the terminal: the formula, its errors, predicted against measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyserve.core.engine.fit import Sample, relative_errors
from anyserve.core.engine.step_time import StepTimeModel

if TYPE_CHECKING:
    from rich.console import Console

    from anyserve.runtime.calibrate.run import Calibration

_PS_PER_MS: Final = 1e9
_ROWS: Final = 12
_COLUMNS: Final = 56
_EDGE: Final = 0.20
_TERMS: Final = (
    ("base_ps", "per step", 1),
    ("floor_ps", "weights are read anyway", 1),
    ("prefill_ps", "per prompt token", 1),
    ("decode_ps", "per decoding sequence", 1),
    ("prompt_ps", "per prompt in a step", 1),
    ("context_ps", "per 1000 context tokens that decodes read", 1000),
    ("attention_ps", "per million pairs of tokens in prompts", 1_000_000),
)
"""Coefficients, in words, and how many units are told together."""


def draw_calibration(console: Console, found: Calibration) -> None:
    """Everything about a calibration that a person wants to see."""
    from rich.table import Table  # noqa: PLC0415 - only where something is drawn

    profile, quality = found.profile, found.profile.quality
    assert quality is not None
    table = Table(
        "step time", "", box=None, pad_edge=False, title=profile.name, title_justify="left"
    )
    for name, words, units in _TERMS:
        value = getattr(profile.step_time, name)
        if value:
            table.add_row(words, span(value * units))
    for tokens, height in profile.step_time.table[1:]:
        table.add_row(f"{tokens} tokens", f"+{span(height)}")
    table.add_row("taking a request in", span(profile.intake_ps))
    for ms, us in profile.cooling:
        table.add_row(f"first step after {ms} ms without work", f"+{span(us * _PS_PER_MS / 1000)}")
    table.add_row("per token, where their number is new", f"+{span(profile.shape_ps)}")
    for engines, factor in profile.contention:
        table.add_row(f"beside {engines - 1} busy engines", f"{factor:.2f} times as long")
    console.print(table)
    console.print(
        f"\nform {quality.form}, fitted to {quality.steps} steps; over {quality.held_out_steps} "
        f"held-out ones: median error {quality.median_error:.1%}, p90 {quality.p90_error:.1%}, "
        f"all together {quality.mean_bias:+.1%}, R² {quality.r2:.3f}"
    )
    held_out = [one for one in found.samples if one.held_out]
    console.print("\npredicted / measured over the time of a held-out step (each dot: steps)")
    for line in scatter(profile.step_time, held_out, profile.shape_ps):
        console.print(line, highlight=False)


def span(time_ps: float) -> str:
    """A duration with three digits and the unit that suits it."""
    for unit, size in (("s", 1e12), ("ms", _PS_PER_MS), ("µs", 1e6), ("ns", 1e3)):
        if time_ps >= size:
            return f"{time_ps / size:.3g} {unit}"
    return f"{time_ps:.0f} ps"


def scatter(model: StepTimeModel, samples: list[Sample], shape_ps: int = 0) -> list[str]:
    """Rows of text: relative errors, from +20% down to -20%, over measured times.

    `shape_ps`: what each token of a step costs whose number of them is new, in ps.
    """
    errors = relative_errors(model, samples, shape_ps)
    times = [one.time_ps for one in samples]
    low, high = min(times), max(times)
    counts = [[0] * _COLUMNS for _ in range(_ROWS)]
    for time_ps, error in zip(times, errors, strict=True):
        column = int((time_ps - low) / max(1, high - low) * (_COLUMNS - 1))
        place = (_EDGE - min(max(error, -_EDGE), _EDGE)) / (2 * _EDGE)
        counts[round(place * (_ROWS - 1))][column] += 1
    most = max(max(row) for row in counts)
    lines = []
    for number, row in enumerate(counts):
        edge = _EDGE - 2 * _EDGE * number / (_ROWS - 1)
        label = f"{edge:+5.0%} " if number % 3 == 0 or number == _ROWS - 1 else "      "
        lines.append(label + "│" + "".join(_dot(count, most) for count in row).rstrip())
    lines.append("      └" + "─" * _COLUMNS)
    lines.append(f"       {low / _PS_PER_MS:<8.1f}{'ms':^{_COLUMNS - 16}}{high / _PS_PER_MS:>8.1f}")
    return lines


def _dot(count: int, most: int) -> str:
    if not count:
        return " "
    return "·•●"[min(2, 3 * count // (most + 1))]
