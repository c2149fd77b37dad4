"""What a caller decides about the screens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anyserve.telemetry.run_plan import RunPlan

DEFAULT_HZ = 4.0
SLOW_HZ = 2.0
RATES_HZ = (0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True)
class TuiOptions:
    """`plan` None: it is read from the run directory that the source's facts name, where there is
    one. `color` False: no colour at all (NO_COLOR). `theme` "": dark. `screenshots`: where `w`
    writes."""

    ascii: bool = False
    color: bool = True
    theme: str = ""
    paint_hz: float = DEFAULT_HZ
    plan: RunPlan | None = None
    screenshots: Path = Path()
