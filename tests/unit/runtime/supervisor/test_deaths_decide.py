from __future__ import annotations

from dataclasses import replace

import pytest

from anyserve.core.events import AnyEvent, ProcessExited
from anyserve.runtime.logs import ErrorReport
from anyserve.runtime.supervisor.children import ExitReport
from anyserve.runtime.supervisor.deaths import Deaths, Over

EXIT = ExitReport(
    name="replica s1",
    pid=1,
    exit_code=-9,
    lived_s=1.0,
    ordered=False,
    was_ready=True,
    restart_in_s=0.5,
    error=None,
    tail=("last words",),
)


class Told:
    def __init__(self) -> None:
        self.events: list[AnyEvent] = []
        self.notices: list[str] = []
        self.deaths = Deaths(self.events.append, self.notices.append)


async def test_death_that_is_mended_is_told_and_nothing_ends() -> None:
    told = Told()
    told.deaths.on_exit(EXIT)
    assert told.events == [ProcessExited(name="replica s1", exit_code=-9, restart_in_s=0.5)]
    assert told.notices == ["replica s1 ended (SIGKILL), starts again in 0.5 s"]
    assert not told.deaths.over.done()


@pytest.mark.parametrize("name", ["replica s1", "recorder", "zygote"])
async def test_run_goes_on_without_what_is_given_up(name: str) -> None:
    told = Told()
    told.deaths.on_exit(replace(EXIT, name=name, restart_in_s=None))
    assert told.events == [ProcessExited(name=name, exit_code=-9)]
    assert told.notices == [f"{name} ended too often (SIGKILL) and stays down"]
    assert not told.deaths.over.done()


async def test_nothing_goes_on_without_scheduler_or_player() -> None:
    for name in ("scheduler", "player"):
        told = Told()
        told.deaths.on_exit(replace(EXIT, name=name, restart_in_s=None))
        over = await told.deaths.over
        assert over.exit_code == 3
        assert over.error is not None
        assert over.error.message == f"{name} ended (SIGKILL)\n  last words"


async def test_player_s_own_error_decides_the_exit_code() -> None:
    told = Told()
    error = ErrorReport(code="time", message="too slow", exit_code=4)
    told.deaths.on_exit(replace(EXIT, name="player", exit_code=4, restart_in_s=None, error=error))
    assert await told.deaths.over == Over(4, "player failed", error)


async def test_player_that_is_done_is_no_death() -> None:
    told = Told()
    told.deaths.on_exit(replace(EXIT, name="player", exit_code=0, restart_in_s=None))
    assert (await told.deaths.over).exit_code == 0
    assert (told.events, told.notices) == ([], [])


async def test_wanted_ends_are_not_told() -> None:
    told = Told()
    told.deaths.expected.add("player")
    told.deaths.on_exit(replace(EXIT, name="player"))
    told.deaths.ending = True
    told.deaths.on_exit(EXIT)
    assert (told.events, told.notices) == ([], [])
    assert not told.deaths.over.done()


async def test_first_reason_stays_and_a_reopened_cluster_ends_anew() -> None:
    deaths = Told().deaths
    deaths.finish(Over(0, "done"))
    deaths.broker_gone("late")
    assert (await deaths.over).reason == "done"
    deaths.reopen()
    deaths.broker_gone("gone")
    assert (await deaths.over).exit_code == 3
