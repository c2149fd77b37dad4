"""`--color` and `--ascii` may stand anywhere before `--`."""

from __future__ import annotations

import pytest

from anyserve.cli.main import GlobalOptions, take_global_options
from anyserve.errors import UsageError


@pytest.mark.parametrize(
    ("argv", "color", "plain", "rest"),
    [
        ([], None, False, []),
        (["--ascii", "status"], None, True, ["status"]),
        (["up", "x", "--color", "never"], "never", False, ["up", "x"]),
        (["up", "--color=always", "x"], "always", False, ["up", "x"]),
        (["send", "--", "--ascii", "--color"], None, False, ["send", "--", "--ascii", "--color"]),
    ],
)
def test_they_are_taken_out_wherever_they_stand(
    argv: list[str], color: str | None, plain: bool, rest: list[str]
) -> None:
    assert take_global_options(argv) == (GlobalOptions(color, plain), rest)


def test_color_needs_a_value() -> None:
    with pytest.raises(UsageError):
        take_global_options(["status", "--color"])
