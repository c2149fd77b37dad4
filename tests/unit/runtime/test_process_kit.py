from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from anyserve.core.spec import ClusterSpec
from anyserve.errors import StartError, UsageError
from anyserve.runtime.bus.address import BrokerAddress, Credential, Role
from anyserve.runtime.lifeline import Lifeline
from anyserve.runtime.logs import find_error
from anyserve.runtime.process import (
    Incarnations,
    NodeConfig,
    NodeRole,
    boot_id,
    find_foreseen,
    load_config,
    write_private,
)

PASSWORD = "correct-horse"
PREAMBLE = """
import asyncio, os, sys
from anyserve.errors import *
from anyserve.runtime.process import *

async def main(config, stop):
"""
EPILOGUE = """
sys.exit(run_node(main, orphan_grace_s=float(os.environ.get("GRACE", "0"))))
"""


def config(**changes: object) -> NodeConfig:
    made = NodeConfig(
        role=NodeRole.REPLICA,
        id="s1",
        cluster=ClusterSpec(name="c", capabilities=(), replicas=()),
        broker=BrokerAddress("127.0.0.1", 1883),
        credential=Credential("replica", PASSWORD),
        prefix="anyserve/c",
        run_dir="/runs/1",
        incarnation=17,
        boot_id="b",
        extra={"anything": [1, 2]},
    )
    return msgspec.structs.replace(made, **changes)


class Node:
    """A process that runs `body` as its main."""

    def __init__(self, directory: Path, body: str, **environ: str) -> None:
        self.log = directory / "node.log"
        path = directory / "node.json"
        write_private(path, msgspec.json.encode(config(log_path=str(self.log))))
        self.lifeline = Lifeline()
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{PREAMBLE}    {body}\n{EPILOGUE}", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=self.lifeline.pass_fds,
            env={**os.environ, **self.lifeline.env, **environ},
        )

    def wait_started(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"up\n"

    def end(self) -> tuple[int, str]:
        _, stderr = self.process.communicate(timeout=45)
        self.lifeline.close()
        return self.process.returncode, stderr.decode()


WAITS = "print('up', flush=True); await stop.wait(); return 0"
IGNORES = "print('up', flush=True); await asyncio.Event().wait()"


def test_configuration_reads_back_from_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "node.json"
    write_private(path, b"old")
    write_private(path, msgspec.json.encode(config()))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_config(path) == config()
    assert list(tmp_path.iterdir()) == [path]


def test_password_shows_in_no_repr() -> None:
    assert PASSWORD not in repr(config())


@pytest.mark.parametrize("content", [None, b"{}", b"\xff"])
def test_bad_configuration_is_a_usage_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "node.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError):
        load_config(path)


def test_every_role_has_its_bus_role() -> None:
    assert [role.bus_role for role in NodeRole] == [
        Role.SCHEDULER,
        Role.REPLICA,
        Role.ORIGIN,
        Role.OBSERVER,
        Role.ORIGIN,
    ]


def test_incarnations_grow_even_when_the_clock_goes_back() -> None:
    clock = iter([100, 100, 50, 200])
    incarnations = Incarnations(lambda: next(clock))
    assert [incarnations.next("s1") for _ in range(3)] == [100, 101, 102]
    assert incarnations.next("h1") == 200


def test_boot_id_is_stable() -> None:
    assert boot_id() == boot_id() != ""


def test_foreseen_error_is_found_within_groups() -> None:
    wanted = StartError("no", code="c")
    group = ExceptionGroup("a", [ValueError(), ExceptionGroup("b", [wanted])])
    assert find_foreseen(group) is wanted
    assert find_foreseen(ExceptionGroup("a", [ValueError()])) is None


def test_sigterm_ends_a_node_in_order_and_sigint_does_not(tmp_path: Path) -> None:
    node = Node(tmp_path, WAITS)
    node.wait_started()
    node.process.send_signal(signal.SIGINT)
    node.process.send_signal(signal.SIGTERM)
    assert node.end() == (0, "")
    assert "replica s1 ends with exit code 0" in node.log.read_text()


def test_second_sigterm_ends_it_at_once(tmp_path: Path) -> None:
    body = "print('up', flush=True); await stop.wait(); print('up', flush=True); "
    node = Node(tmp_path, body + "await asyncio.Event().wait()")
    node.wait_started()
    node.process.send_signal(signal.SIGTERM)
    node.wait_started()
    node.process.send_signal(signal.SIGTERM)
    assert node.end()[0] == 143


def test_end_of_the_lifeline_ends_it(tmp_path: Path) -> None:
    node = Node(tmp_path, IGNORES)
    node.wait_started()
    node.lifeline.close()
    assert node.end()[0] == 3


def test_orphan_with_a_grace_may_finish(tmp_path: Path) -> None:
    node = Node(tmp_path, WAITS, GRACE="40")
    node.wait_started()
    node.lifeline.close()
    assert node.end()[0] == 0


def test_orphan_that_overstays_its_grace_is_ended(tmp_path: Path) -> None:
    node = Node(tmp_path, IGNORES, GRACE="0.05")
    node.wait_started()
    node.lifeline.close()
    assert node.end()[0] == 3


def test_foreseen_error_is_one_line_and_its_exit_code(tmp_path: Path) -> None:
    raised = f"raise MissingDependencyError('no vllm for {PASSWORD}', code='no_vllm', hint='h')"
    code, stderr = Node(tmp_path, raised).end()
    assert code == 5
    assert json.loads(stderr)["error"] == {
        "code": "no_vllm",
        "message": "no vllm for ********",
        "hint": "h",
        "exit_code": 5,
    }


def test_bug_is_reported_logged_and_redacted(tmp_path: Path) -> None:
    node = Node(tmp_path, f"raise ValueError('mqtt://u:pw@host {PASSWORD}')")
    code, stderr = node.end()
    assert code == 70
    report = find_error(stderr.splitlines())
    assert report is not None
    assert report.message == "ValueError: mqtt://u:********@host ********"
    log = node.log.read_text()
    assert "Traceback" in log
    assert PASSWORD not in log
    assert ":pw@" not in log
