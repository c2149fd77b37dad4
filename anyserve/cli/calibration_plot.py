"""A calibration in the terminal: the formula, its errors, predicted against measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyserve.core.engine.fit import Sample, relative_errors
from anyserve.core.engine.step_time import StepTimeModel

if TYPE_CHECKING:
    from rich.console import Console

    from anyserve.runtime.calibrate.run import Calibration

_PS_PER_MS: Final = 1e9
_PS_PER_US: Final = 1e6
_ROWS: Final = 12
_COLUMNS: Final = 56
_EDGE: Final = 0.20
_TERMS: Final = (
    ("base_ps", "per step", "ms", _PS_PER_MS),
    ("floor_ps", "weights are read anyway", "ms", _PS_PER_MS),
    ("prefill_ps", "per prompt token", "µs", _PS_PER_US),
    ("decode_ps", "per decoding sequence", "µs", _PS_PER_US),
    ("prompt_ps", "per prompt in a step", "µs", _PS_PER_US),
    ("context_ps", "per 1000 context tokens read by decodes", "µs", _PS_PER_US / 1000),
    ("attention_ps", "per million pairs in prompts", "µs", _PS_PER_US / 1e6),
)


def draw_calibration(console: Console, found: Calibration) -> None:
    """Everything about a calibration that a person wants to see."""
    from rich.table import Table  # noqa: PLC0415 - only where something is drawn

    profile, quality = found.profile, found.profile.quality
    assert quality is not None
    table = Table(
        "step time", "", box=None, pad_edge=False, title=profile.name, title_justify="left"
    )
    for name, words, unit, scale in _TERMS:
        value = getattr(profile.step_time, name)
        if value:
            table.add_row(words, f"{value / scale:.3g} {unit}")
    for tokens, height in profile.step_time.table[1:]:
        table.add_row(f"{tokens} tokens", f"+{height / _PS_PER_MS:.3g} ms")
    table.add_row("taking a request in", f"{profile.intake_us:.0f} µs")
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
    for line in scatter(profile.step_time, held_out):
        console.print(line, highlight=False)


def scatter(model: StepTimeModel, samples: list[Sample]) -> list[str]:
    """Rows of text: relative errors, from +20% down to -20%, over measured times."""
    errors = relative_errors(model, samples)
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
