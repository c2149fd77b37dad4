"""`anyserve up` and `anyserve tui` in a real terminal: opened, walked, left, killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_world import Shell
from tmux import PROMPT, Tmux, screen_process

pytestmark = pytest.mark.timeout(240)
SHOWN = ("replicas", "tiny", "LIVE")


@pytest.fixture
def terminal(shell: Shell) -> Iterator[Tmux]:
    tmux = Tmux(shell)
    yield tmux
    tmux.close()


def left_in_order(terminal: Tmux, shell: Shell, code: int) -> str:
    """The terminal after the command: its last lines, as it was before, and nothing runs."""
    screen = terminal.until(f"code {code}", PROMPT.strip())
    assert terminal.is_restored()
    assert not {"-isig", "-icanon", "-echo"} & set(screen.split())
    terminal.leave()
    return screen


def test_a_run_is_watched_walked_and_reported(
    terminal: Tmux, shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario(duration="2s")
    terminal.anyserve("up", "tiny.yaml")
    terminal.until(*SHOWN, "s1", "h1", "ready")
    terminal.keys("t")
    terminal.until("requests")
    terminal.keys("Escape")
    terminal.until("replicas")
    terminal.keys("?")
    terminal.until("q", "Quit")
    terminal.keys("?")

    # The run ends; the person may look at it as long as they like.
    terminal.until("ENDED", "s1")
    terminal.keys("q")
    screen = left_in_order(terminal, shell, 0)
    assert "1 of 1 expectations met" in screen
    assert "again    anyserve up tiny.yaml" in screen
    shell.assert_clean()


def test_leaving_a_run_asks_once_and_stops_its_cluster(
    terminal: Tmux, shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario(duration="100s")
    terminal.anyserve("up", "tiny.yaml")
    terminal.until(*SHOWN, "run ")
    terminal.keys("q")
    terminal.until("Quitting stops the cluster")
    terminal.keys("y")
    left_in_order(terminal, shell, 130)
    shell.assert_clean()


def test_ctrl_c_on_the_screen_drains_and_again_kills(
    terminal: Tmux, shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario(duration="100s", step="1s", tokens=100)
    terminal.anyserve("up", "tiny.yaml")
    terminal.until(*SHOWN, "phase")
    terminal.keys("C-c")
    terminal.until("stopping", "Ctrl-C again to kill")
    terminal.keys("C-c")
    screen = left_in_order(terminal, shell, 130)
    assert "killing everything" in screen
    shell.assert_clean()


def test_a_screen_that_is_killed_costs_the_run_nothing(
    terminal: Tmux, shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario(duration="3s")
    terminal.anyserve("up", "tiny.yaml")
    terminal.until(*SHOWN)
    screen_process(shell).kill()
    terminal.until("the screen ended by itself", "the run goes on")
    screen = left_in_order(terminal, shell, 0)
    assert "1 of 1 expectations met" in screen
    shell.assert_clean()


def test_a_screen_joins_a_running_cluster_and_never_stops_it(
    terminal: Tmux, shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario()
    assert shell.run("up", "tiny.yaml", "--keep").code == 0
    terminal.anyserve("tui")
    screen = terminal.until(*SHOWN, "s1", "h1", "read-only", "delegated")
    assert "Fault" not in screen
    terminal.keys("q")
    terminal.until("code 0")
    assert terminal.is_restored()

    terminal.anyserve("tui", "--attach", "--cluster", "tiny", "--control")
    terminal.until(*SHOWN, "s1", "Fault")
    drained = shell.run("control", "drain", "s1", "--json")
    assert drained.json == {
        "schema": "anyserve.control/1",
        "cluster": "tiny",
        "verb": "drain",
        "target": "s1",
    }
    terminal.until("draining")
    terminal.keys("q")
    left_in_order(terminal, shell, 0)
    assert shell.run("down", "tiny").code == 0
    shell.assert_clean()
