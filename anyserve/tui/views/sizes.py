"""How the overview divides the screen."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_WIDTH, LEAST_HEIGHT = 80, 20
WIDE = 120
HIGH = 30
_BORDER = 2
_LEAST_PANEL = 4
_TOP_SHARE = 0.45
_LEAST_LEFT, _LEFT_SHARE = 44, 0.55


@dataclass(frozen=True, slots=True)
class Sizes:
    """The replicas on top, `top` lines high; below them two columns. In the left one, `left` cells
    wide, the matrix takes `matrix` lines and the events the rest; in the right one the scenario
    takes `scenario` lines and the ledger the rest. `tabs`: one panel at a time, with a tab bar."""

    too_small: bool = False
    tabs: bool = False
    top: int = 0
    left: int = 0
    matrix: int = 0
    events: int = 0
    ledger: int = 0
    scenario: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Lines that the panels could fill, and the width of the whole matrix."""

    replicas: int
    matrix: int
    scenario: int
    matrix_width: int = 0


def divide(width: int, body: int, wanted: Wanted) -> Sizes:
    """Sizes that add up to the lines between header and footer, `body`.

    The replicas take what they need, up to 45%; matrix and scenario what they need of the rest, up
    to half; events and ledger take the slack.
    """
    if width < LEAST_WIDTH or body < LEAST_HEIGHT - 4:
        return Sizes(too_small=True)
    if width < WIDE or body < HIGH - 6:
        return Sizes(tabs=True)
    top = min(max(wanted.replicas + 1 + _BORDER, _LEAST_PANEL), int(body * _TOP_SHARE))
    rest = body - top
    matrix = min(max(wanted.matrix + 1 + _BORDER, _LEAST_PANEL), rest // 2)
    scenario = min(max(wanted.scenario + _BORDER, _LEAST_PANEL), rest // 2)
    left = min(max(wanted.matrix_width + _BORDER, _LEAST_LEFT), int(width * _LEFT_SHARE))
    return Sizes(
        top=top,
        left=left,
        matrix=matrix,
        events=rest - matrix,
        ledger=rest - scenario,
        scenario=scenario,
    )
