"""Where a screen is opened, and what is said while it has the terminal."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest

from anyserve.cli.diagnostics import Diagnostics
from anyserve.cli.session import open_session
from anyserve.cli.terminal import Terminal
from anyserve.cli.up import screen
from anyserve.cli.up.screen import choose_ui
from anyserve.cli.up.steps import Steps
from anyserve.cli.web import is_local
from anyserve.errors import UsageError
from anyserve.runtime.supervisor.progress import Step, StepState


@dataclass
class Stream:
    tty: bool

    def isatty(self) -> bool:
        return self.tty


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    *,
    stdin: bool = True,
    stderr: bool = True,
    term: str = "xterm",
    as_json: bool = False,
    foreground: bool = True,
) -> str:
    session = open_session(None, ascii_only=False, environ={"TERM": term})
    monkeypatch.setattr(screen, "in_foreground", lambda: foreground)
    monkeypatch.setattr("sys.stdin", Stream(stdin))
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", Stream(stderr))
        return choose_ui(session, wanted, as_json=as_json)


def test_a_terminal_gets_a_screen_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, screen.AUTO) == "tui"


@pytest.mark.parametrize(
    "without",
    [
        {"stdin": False},
        {"stderr": False},
        {"term": "dumb"},
        {"as_json": True},
        {"foreground": False},
    ],
)
def test_whatever_is_no_terminal_gets_lines(
    monkeypatch: pytest.MonkeyPatch, without: dict[str, bool | str]
) -> None:
    assert chosen(monkeypatch, screen.AUTO, **without) == "plain"  # type: ignore[arg-type]


def test_a_screen_that_was_asked_for_and_cannot_be_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match="stdin") as refused:
        chosen(monkeypatch, screen.TUI, stdin=False)
    assert "--ui plain" in refused.value.hint
    with pytest.raises(UsageError, match="background"):
        chosen(monkeypatch, screen.TUI, foreground=False)


@pytest.mark.parametrize("wanted", ["plain", "json", "none"])
def test_what_was_asked_for_is_what_comes(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    assert chosen(monkeypatch, wanted) == wanted


def test_while_a_screen_has_the_terminal_nothing_is_written_and_notices_wait() -> None:
    written = io.StringIO()
    steps = Steps(Diagnostics(Terminal(), written), quiet=False)
    steps.step(Step(name="broker", state=StepState.OK))
    steps.hold()
    before = written.getvalue()
    steps.step(Step(name="scheduler", state=StepState.OK))
    steps.notice("the broker ended")
    steps.closing()
    assert written.getvalue() == before
    steps.release()
    assert written.getvalue() == f"{before}! the broker ended\n"


@pytest.mark.parametrize(
    ("host", "origin", "local"),
    [
        ("127.0.0.1:8000", None, True),
        ("localhost:8000", "http://localhost:8000", True),
        ("127.0.0.1:8000", "http://evil.example", False),
        ("evil.example:8000", None, False),
        ("127.0.0.1:8001", None, False),
        ("", None, False),
        ("127.0.0.1:8000", "null", False),
    ],
)
def test_the_browser_page_is_for_this_machine_and_its_own_site(
    host: str, origin: str | None, local: bool
) -> None:
    assert is_local(host, origin, 8000) is local
