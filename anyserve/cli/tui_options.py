"""What this call of `anyserve` means for the screens."""

from __future__ import annotations

import sys

from anyserve.cli.session import Session
from anyserve.errors import UsageError
from anyserve.tui.options import DEFAULT_HZ, TuiOptions


def screen_options(session: Session, *, theme: str = "", paint_hz: float = DEFAULT_HZ) -> (
    TuiOptions
):  # fmt: skip
    """Colour and characters as for every other command; screenshots go where the person is.

    Raises:
        UsageError: there is no such theme.
    """
    if theme:
        _check_theme(theme)
    return TuiOptions(
        ascii=session.terminal.ascii,
        color=session.terminal.colored(sys.stderr),
        theme=theme,
        paint_hz=paint_hz,
        screenshots=session.cwd,
    )


def _check_theme(theme: str) -> None:
    from anyserve.tui.themes import theme_names  # noqa: PLC0415 - loads Textual

    names = theme_names()
    if theme not in names:
        raise UsageError(
            f"there is no theme '{theme}'", code="unknown_theme", hint=f"known: {', '.join(names)}"
        )
