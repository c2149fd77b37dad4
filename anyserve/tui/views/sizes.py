"""How the overview divides the screen."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_WIDTH, LEAST_HEIGHT = 80, 20
WIDE = 120
HIGH = 30
_BORDER = 2
_LEAST_PANEL = 4
_TOP_SHARE = 0.45


@dataclass(frozen=True, slots=True)
class Sizes:
    """Heights of the three bands of panels. `tabs`: one panel at a time, with a tab bar."""

    too_small: bool = False
    tabs: bool = False
    top: int = 0
    middle: int = 0
    bottom: int = 0


def divide(width: int, body: int, replicas: int, scenario: int) -> Sizes:
    """Heights that add up to `body`, the lines between header and footer.

    The replicas take what they need, up to 45%; the scenario takes what it needs of the rest, up to
    half; the ledger takes the slack.
    """
    if width < LEAST_WIDTH or body < LEAST_HEIGHT - 4:
        return Sizes(too_small=True)
    if width < WIDE or body < HIGH - 6:
        return Sizes(tabs=True)
    top = min(max(replicas + 1 + _BORDER, _LEAST_PANEL), int(body * _TOP_SHARE))
    rest = body - top
    bottom = min(max(scenario + _BORDER, _LEAST_PANEL), rest // 2)
    return Sizes(top=top, middle=rest - bottom, bottom=bottom)
