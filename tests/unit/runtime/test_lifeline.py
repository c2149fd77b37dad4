"""A child leaves when its parent's end of the lifeline is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from anyserve.runtime.lifeline import (
    LIFELINE_ENV,
    ORPHANED_EXIT_CODE,
    Lifeline,
    lifeline_fd,
    watch_lifeline,
)

CHILD = """
import sys, threading
from anyserve.runtime.lifeline import watch_lifeline
thread = watch_lifeline()
print("watching" if thread else "free", flush=True)
if thread:
    threading.Event().wait(30)
    print("still here", flush=True)
"""

PARENT = f"""
import subprocess, sys, os
from anyserve.runtime.lifeline import Lifeline
line = Lifeline()
subprocess.Popen([sys.executable, "-c", {CHILD!r}], pass_fds=line.pass_fds,
                 env={{**os.environ, **line.env}})
os.read(0, 1)
"""


def run_child(**options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload,no-any-return]


def test_a_child_leaves_when_the_lifeline_is_closed() -> None:
    with Lifeline() as line:
        child = run_child(pass_fds=line.pass_fds, env={**os.environ, **line.env})
        assert child.stdout is not None
        assert child.stdout.readline() == "watching\n"
        assert child.poll() is None
    assert child.wait(10) == ORPHANED_EXIT_CODE
    child.stdout.close()


def test_a_child_leaves_when_its_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "watching\n"
        parent.kill()
        # The child has inherited this pipe: it ends when both are gone.
        assert parent.stdout.read() == ""


def test_without_a_lifeline_nothing_is_watched() -> None:
    environment = {k: v for k, v in os.environ.items() if k != LIFELINE_ENV}
    child = run_child(env=environment)
    output, _ = child.communicate(timeout=10)
    assert output == "free\n"
    assert child.returncode == 0


def test_the_callback_runs_once_the_pipe_ends() -> None:
    ended = threading.Event()
    line = Lifeline()
    thread = watch_lifeline(ended.set, fd=os.dup(line.pass_fds[0]))
    assert thread is not None
    line.send(b"words are ignored by a plain watch")
    assert not ended.is_set()
    line.close()
    line.close()
    assert ended.wait(10)
    thread.join(10)


def test_the_fd_is_not_handed_on() -> None:
    with Lifeline() as line:
        assert lifeline_fd(line.env) == line.pass_fds[0]
        assert not os.get_inheritable(line.pass_fds[0])
    assert lifeline_fd({}) is None
