"""Ctrl-C once drains, twice kills, SIGTERM likewise; and `kill -9` leaves no orphan."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from cli_world import Shell

READY = "ready; watch it"


def test_ctrl_c_once_lets_running_requests_finish(
    shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario(duration="60s", step="50ms", tokens=20)
    process = shell.start("up", "tiny.yaml")
    process.wait_for("phase all")
    process.interrupt()
    said = process.wait_for("stopping")
    result = process.finish()

    assert result.code == 130, result.err
    assert "Ctrl-C again to kill" in said
    assert " cancelled" not in result.out
    assert "offered ·" in result.out
    shell.assert_clean()


def test_ctrl_c_twice_kills_what_does_not_finish(
    shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario(duration="60s", step="1s", tokens=100)
    process = shell.start("up", "tiny.yaml")
    process.wait_for("phase all")
    process.interrupt()
    process.wait_for("stopping")
    process.interrupt()
    process.wait_for("killing everything")
    result = process.finish()

    assert result.code == 130, result.err
    shell.assert_clean()


def test_ctrl_c_while_it_starts_leaves_nothing(shell: Shell, scenario: Callable[..., Path]) -> None:
    scenario()
    process = shell.start("up", "tiny.yaml")
    process.wait_for("broker")
    process.interrupt()
    result = process.finish()

    assert result.code == 130, result.err
    assert result.out == ""
    shell.assert_clean()


def test_sigterm_drains_too(shell: Shell, scenario: Callable[..., Path]) -> None:
    scenario(duration="60s")
    process = shell.start("up", "tiny.yaml")
    process.wait_for(READY)
    process.popen.send_signal(signal.SIGTERM)
    result = process.finish()

    assert result.code == 143, result.err
    shell.assert_clean()


def test_kill_9_of_the_foreground_leaves_no_orphan(
    shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario(duration="60s")
    process = shell.start("up", "tiny.yaml")
    process.wait_for(READY)
    process.popen.kill()
    process.finish()

    end_s = time.monotonic() + 20
    while (shell.left_processes() or shell.left_files()) and time.monotonic() < end_s:
        time.sleep(0.05)  # orphans are nobody's children: there is nothing to wait for
    shell.assert_clean()
