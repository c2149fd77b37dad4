"""Child management with real processes, small enough to be written here."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from anyserve.errors import MissingDependencyError, StartError
from anyserve.runtime.supervisor.children import Child, ChildSpec, ChildState, ExitReport
from anyserve.runtime.supervisor.restarts import RestartPolicy

QUICK = RestartPolicy(first_s=0.01, most_s=0.01)
MARK = "ANYSERVE_TEST_MARK"

READY = """
import os, signal, time
from anyserve.runtime.process import report_ready
report_ready()
"""
SLEEP = READY + "time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP
LOYAL = "from anyserve.runtime.lifeline import watch_lifeline; watch_lifeline()\n" + SLEEP
POLITE = (
    """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
"""
    + SLEEP
)
PARENT = (
    """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
"""
    + SLEEP
)


class Nursery:
    """Makes children of one test and sees them all gone afterwards."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mark = uuid.uuid4().hex
        self.reports: list[ExitReport] = []
        self.children: list[Child] = []

    def child(
        self, script: str, *, restart: RestartPolicy | None = None, grace_s: float = 30.0
    ) -> Child:
        spec = ChildSpec(
            name="node",
            prepare=lambda: [sys.executable, "-c", script],
            log_path=self.directory / "node.log",
            restart=restart,
            grace_s=grace_s,
            env={MARK: self.mark},
        )
        child = Child(spec, self.reports.append)
        self.children.append(child)
        return child

    def processes(self) -> list[psutil.Process]:
        return marked(self.mark)


def marked(mark: str) -> list[psutil.Process]:
    """All processes, zombies left out, that carry this mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(done: Callable[[], object]) -> None:
    """Wait for what other processes bring about."""
    async with asyncio.timeout(30):
        while not done():  # noqa: ASYNC110 - foreign processes send us no event
            await asyncio.sleep(0.01)


@pytest.fixture
async def nursery(tmp_path: Path) -> AsyncIterator[Nursery]:
    made = Nursery(tmp_path)
    yield made
    for child in made.children:
        child.kill()
        await child.wait_ended()
    assert made.processes() == []


async def test_ready_child_runs_and_a_polite_one_ends_on_sigterm(nursery: Nursery) -> None:
    child = nursery.child(POLITE)
    await child.start()
    await child.wait_ready(30)
    assert child.state is ChildState.RUNNING
    assert [process.pid for process in nursery.processes()] == [child.pid]
    await child.stop()
    assert child.pid is None
    assert (nursery.reports[0].exit_code, nursery.reports[0].ordered) == (0, True)


async def test_child_that_ignores_sigterm_is_killed_after_its_grace(nursery: Nursery) -> None:
    child = nursery.child(STUBBORN, grace_s=0.2)
    await child.start()
    await child.wait_ready(30)
    await child.stop()
    assert nursery.reports[0].cause == "SIGKILL"


async def test_stopped_process_still_hears_sigterm(nursery: Nursery) -> None:
    child = nursery.child(SLEEP)
    await child.start()
    await child.wait_ready(30)
    child.signal(signal.SIGSTOP)
    await child.stop()
    assert nursery.reports[0].cause == "SIGTERM"


async def test_kill_beside_a_stop_ends_the_wait(nursery: Nursery) -> None:
    child = nursery.child(STUBBORN, grace_s=600)
    await child.start()
    await child.wait_ready(30)
    stopping = asyncio.create_task(child.stop())
    await asyncio.sleep(0)
    child.kill()
    await stopping
    assert nursery.reports[0].cause == "SIGKILL"


async def test_what_a_child_leaves_behind_goes_with_it(nursery: Nursery) -> None:
    child = nursery.child(PARENT)
    await child.start()
    await child.wait_ready(30)
    assert len(nursery.processes()) == 2
    child.signal(signal.SIGKILL)
    await child.wait_ended()
    await until(lambda: not nursery.processes())


async def test_dead_child_is_started_again_and_given_up_at_the_third_exit(
    nursery: Nursery,
) -> None:
    child = nursery.child("raise SystemExit(7)", restart=QUICK)
    await child.start()
    await child.wait_ended()
    assert [report.exit_code for report in nursery.reports] == [7, 7, 7]
    assert [report.restart_in_s for report in nursery.reports] == [0.01, 0.01, None]
    assert child.state is ChildState.GAVE_UP
    assert child.restarts == 2


async def test_ordered_kills_do_not_use_up_the_restarts(nursery: Nursery) -> None:
    child = nursery.child(SLEEP, restart=QUICK)
    await child.start()
    for life in range(1, 6):
        await until(lambda life=life: child.lives == life and child.pid is not None)  # type: ignore[misc]
        await child.wait_ready(30)
        child.signal(signal.SIGKILL)
        await until(lambda life=life: len(nursery.reports) == life)  # type: ignore[misc]
    assert all(report.restart_in_s is not None for report in nursery.reports)


async def test_child_without_a_policy_stays_down(nursery: Nursery) -> None:
    child = nursery.child("")
    await child.start()
    await child.wait_ended()
    assert child.state is ChildState.STOPPED
    assert len(nursery.reports) == 1


async def test_restart_by_hand_comes_at_once(nursery: Nursery) -> None:
    child = nursery.child(SLEEP, restart=RestartPolicy(first_s=600.0, most_s=600.0))
    await child.start()
    await child.wait_ready(30)
    first = child.pid
    await child.restart()
    await until(lambda: child.pid not in {first, None})
    await child.wait_ready(30)
    assert child.restarts == 1


async def test_stop_during_back_off_ends_it(nursery: Nursery) -> None:
    child = nursery.child("", restart=RestartPolicy(first_s=600.0, most_s=600.0))
    await child.start()
    await until(lambda: child.state is ChildState.BACKING_OFF)
    await child.stop()
    assert child.state is ChildState.STOPPED


async def test_start_that_fails_carries_the_reported_error(nursery: Nursery) -> None:
    script = """
import sys
from anyserve.runtime.logs import ErrorReport
from anyserve.runtime.process import report_error
report_error(ErrorReport(code="no_vllm", message="vLLM is not here", hint="do x", exit_code=5))
sys.exit(5)
"""
    child = nursery.child(script)
    await child.start()
    with pytest.raises(MissingDependencyError, match="node: vLLM is not here") as failed:
        await child.wait_ready(30)
    assert (failed.value.code, failed.value.hint) == ("no_vllm", "do x")


async def test_start_that_crashes_carries_the_last_log_lines(nursery: Nursery) -> None:
    child = nursery.child("raise RuntimeError('the tensor is sad')")
    await child.start()
    with pytest.raises(StartError, match="exit code 1") as failed:
        await child.wait_ready(30)
    assert "the tensor is sad" in failed.value.message
    assert str(child.spec.log_path) in failed.value.hint


async def test_earlier_life_s_log_is_not_blamed_on_this_one(nursery: Nursery) -> None:
    (nursery.directory / "node.log").write_text("an old error\n")
    child = nursery.child("raise SystemExit(1)")
    await child.start()
    with pytest.raises(StartError) as failed:
        await child.wait_ready(30)
    assert "an old error" not in failed.value.message


async def test_start_that_takes_too_long_is_said(nursery: Nursery) -> None:
    child = nursery.child("import time; time.sleep(600)")
    await child.start()
    with pytest.raises(StartError, match=r"not ready after 0\.05 s"):
        await child.wait_ready(0.05)


async def test_command_that_does_not_exist(nursery: Nursery) -> None:
    spec = ChildSpec("ghost", lambda: ["/nowhere/ghost"], nursery.directory / "ghost.log")
    fds = open_fds()
    with pytest.raises(StartError, match="ghost could not be started"):
        await Child(spec, nursery.reports.append).start()
    assert open_fds() == fds


async def test_nothing_is_left_open_after_many_lives(nursery: Nursery) -> None:
    fds = open_fds()
    child = nursery.child("", restart=RestartPolicy(first_s=0.001, most_s=0.001, limit=5))
    await child.start()
    await child.wait_ended()
    assert open_fds() <= fds


SUPERVISOR = """
import asyncio, signal, sys
from pathlib import Path
from anyserve.runtime.supervisor.children import Child, ChildSpec

async def main():
    children = []
    for n, script in enumerate(sys.argv[2:]):
        command = [sys.executable, "-c", script]
        spec = ChildSpec(f"n{n}", lambda command=command: command, Path(sys.argv[1]) / f"{n}.log")
        child = Child(spec, lambda report: None)
        await child.start()
        await child.wait_ready(30)
        children.append(child)
    children[-1].signal(signal.SIGSTOP)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    supervisor = subprocess.Popen(  # noqa: ASYNC220 - there is nothing else in this loop
        [sys.executable, "-c", SUPERVISOR, str(tmp_path), LOYAL, LOYAL, LOYAL],
        env={**os.environ, MARK: mark},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"ready\n"
        states = sorted(process.status() for process in marked(mark))
        assert len(states) == 4
        assert psutil.STATUS_STOPPED in states  # even a stopped child must go
        supervisor.kill()
    await until(lambda: not marked(mark))
