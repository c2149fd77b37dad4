"""When there is colour, and what leaves us as ASCII."""

from __future__ import annotations

import io

import pytest

from anyserve.cli.terminal import ColorChoice, Terminal


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("choice", "environ", "stream", "colored"),
    [
        ("auto", {}, Tty(), True),
        ("auto", {}, io.StringIO(), False),
        ("auto", {"NO_COLOR": "1"}, Tty(), False),
        ("auto", {"NO_COLOR": ""}, Tty(), True),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, Tty(), False),
        ("auto", {"FORCE_COLOR": "1"}, io.StringIO(), True),
        ("auto", {"CLICOLOR_FORCE": "1"}, io.StringIO(), True),
        ("auto", {"CLICOLOR_FORCE": "0"}, io.StringIO(), False),
        ("auto", {"CLICOLOR": "0"}, Tty(), False),
        ("auto", {"TERM": "dumb"}, Tty(), False),
        ("always", {"NO_COLOR": "1"}, io.StringIO(), True),
        ("never", {"FORCE_COLOR": "1"}, Tty(), False),
    ],
)
def test_flag_over_no_color_over_force_over_terminal(
    choice: str, environ: dict[str, str], stream: io.StringIO, colored: bool
) -> None:
    terminal = Terminal(ColorChoice(choice), environ=environ)

    assert terminal.colored(stream) is colored
    assert ("\x1b[" in terminal.paint("x", "red", stream)) is colored


def test_ascii_replaces_every_character() -> None:
    terminal = Terminal(ascii=True, environ={})

    assert terminal.fit("✔ a → b · 3 ≤ 4 ü") == "+ a > b - 3 < 4 ?"
    assert terminal.mark(ok=False) == "FAILED"
    assert Terminal(environ={}).fit("✔") == "✔"


def test_a_dumb_terminal_is_not_drawn_over() -> None:
    assert Terminal(environ={"TERM": "xterm"}).lively(Tty())
    assert not Terminal(environ={"TERM": "dumb"}).lively(Tty())
    assert not Terminal(environ={}).lively(io.StringIO())


def test_tables_are_as_wide_as_columns_says_where_there_is_no_terminal() -> None:
    assert Terminal(environ={"COLUMNS": "70"}).console(io.StringIO()).width == 70
    assert Terminal(environ={"COLUMNS": "wide"}).console(io.StringIO()).width == 100
