"""Processes started one by one make the same cluster."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_world import Cli, Shell


@pytest.mark.timeout(120)
def test_broker_scheduler_and_replica_started_alone_find_each_other(
    shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario()
    credentials = str(shell.cwd / "tiny.json")
    broker = shell.start(
        "broker", "--cluster", "tiny", "--port", "0", "--write-credentials", credentials
    )
    broker.wait_for("next:")
    assert Path(credentials).stat().st_mode & 0o777 == 0o600
    scheduler = shell.start("scheduler", "tiny.yaml", "--credentials", credentials)
    scheduler.wait_for("scheduler scheduler begins")
    replica = shell.start("replica", "tiny.yaml", "--id", "s1", "--credentials", credentials)
    replica.wait_for("begins")
    ingress = shell.start("ingress", "tiny.yaml", "--http", "0", "--credentials", credentials)
    door = ingress.wait_for("open: http://").rpartition("open: ")[2].strip()
    with urllib.request.urlopen(f"{door}/ready") as answer:
        assert answer.status == 200

    for process in (ingress, replica, scheduler, broker):
        process.interrupt()
        result = process.finish()
        assert result.code == 130, result.err
    assert re.match(r"mqtt://127\.0\.0\.1:\d+\n", result.out)
    assert not Path(credentials).exists()
    assert shell.left_processes() == []
    assert shell.left_files() == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--host", "0.0.0.0"), 2, "no address that others can connect to"),
        (("--tls-cert", "c.pem"), 2, "--tls-cert and --tls-key go together"),
        (("--tls-cert", "c.pem", "--tls-key", "k.pem"), 2, "there is no file c.pem"),
        (("--host", "192.0.2.1", "--port", "0"), 3, "not an address of this machine"),
    ],
)
def test_a_broker_that_nobody_could_reach_is_refused(
    shell: Shell, words: tuple[str, ...], code: int, said: str
) -> None:
    result = shell.run("broker", *words)

    assert (result.code, said in result.err) == (code, True), result.err
    shell.assert_clean()


def test_a_replica_without_a_broker_exits_3(shell: Shell, scenario: Callable[..., Path]) -> None:
    scenario()
    result = shell.run("replica", "tiny.yaml", "--id", "s1", "--broker", "mqtt://127.0.0.1:1")

    assert result.code == 3
    assert "no broker answers" in result.err
    shell.assert_clean()


def test_the_worker_of_a_replica_can_be_tried_alone(
    shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario()
    result = shell.run("worker", "tiny.yaml", "--id", "s1")

    assert (result.code, result.out) == (0, "Water boils atWater boils atWa\n"), result.err
    shell.assert_clean()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scheduler", "tiny.yaml"], "no broker is named"),
        (["replica", "tiny.yaml", "--id", "s9", "--broker", "mqtt://h"], "has no replica s9"),
        (["worker", "tiny.yaml", "--id", "s9"], "has no replica s9"),
        (["replica", "tiny.yaml", "--id", "s1", "--broker", "http://h"], "begins with mqtt://"),
        (
            ["replica", "tiny.yaml", "--id", "s1", "--broker", "mqtt://u:secret@h"],
            "a password stands in the broker's URL",
        ),
        (["scheduler", "tiny.yaml", "--credentials", "nothing.json"], "cannot read the credent"),
    ],
)
def test_wrong_words_for_a_single_process(
    words: list[str], said: str, cli: Cli, scenario: Callable[..., Path]
) -> None:
    scenario()
    result = cli(*words)

    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert "secret" not in result.err
