"""The whole supervisor as its own process, with a real broker, a real zygote and tiny nodes.

After every test nothing may be left: no process with the test's mark, no listening port, no
directory, no cluster file.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import psutil
import pytest

from anyserve.core.events import (
    Envelope,
    FaultInjected,
    ProcessExited,
    RequestOutcome,
    RunEnded,
)
from anyserve.core.messages import Offer
from anyserve.core.spec import BrokerSpec, ClusterSpec, EngineSpec, FaultSpec, ReplicaSpec
from anyserve.errors import AnyServeError
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.embedded import EmbeddedBroker
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.bus.outbox import BatchReader
from anyserve.runtime.clusters import ClusterRecord, ClusterStore, state_dir
from anyserve.runtime.player.plan_file import write_plan
from anyserve.runtime.supervisor import control
from anyserve.runtime.supervisor.config import Graces, StartLimits, SupervisorConfig
from anyserve.runtime.supervisor.foreground import SUPERVISOR_COMMAND, SupervisorProcess
from anyserve.runtime.supervisor.progress import (
    AnyProgress,
    Exit,
    Notice,
    Ready,
    Step,
    StepState,
    TrafficEnded,
)
from anyserve.workload.compile import compile_scenario
from anyserve.workload.load import parse_scenario

MARK = "ANYSERVE_TEST_MARK"
PROGRAMS = Path(__file__).parent / "supervisor_programs"
COMMAND = (sys.executable, str(PROGRAMS / "supervisor_of_tiny_nodes.py"))
WAIT_S = 45
S = 1_000_000_000

pytestmark = pytest.mark.timeout(120)


def spec(name: str, broker: BrokerSpec = BrokerSpec()) -> ClusterSpec:  # noqa: B008 - frozen
    replicas = tuple(
        ReplicaSpec(
            id=replica,
            offers=(Offer(capability="decode"),),
            engine=EngineSpec(kind="echo"),
        )
        for replica in ("s1", "h1")
    )
    return ClusterSpec(name=name, capabilities=(), replicas=replicas, broker=broker)


def files_in(directory: Path) -> list[str]:
    return [path.name for path in directory.glob("*")]


def mode_of(path: str | Path) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


class Stage:
    """One supervisor under test: its progress, its cluster file, and what is left of it."""

    def __init__(self, directory: Path, mark: str) -> None:
        self.name = f"t-{mark[:8]}"
        self.mark = mark
        self.run_dir = directory / "run"
        self.temp = directory / "tmp"
        self.lines: list[AnyProgress] = []
        self._process: SupervisorProcess | None = None
        self._reading: asyncio.Task[None] | None = None
        self._said = asyncio.Event()

    @property
    def process(self) -> SupervisorProcess:
        assert self._process is not None
        return self._process

    @property
    def store(self) -> ClusterStore:
        return ClusterStore(state_dir(os.environ))

    @property
    def record(self) -> ClusterRecord:
        return self.store.find(self.name)

    async def up(self, command: Sequence[str] = COMMAND, **changes: Any) -> None:
        """Launch a supervisor."""
        options: dict[str, Any] = {
            "cluster": spec(self.name),
            "run_dir": str(self.run_dir),
            "plan_path": "plan.json",
            "graces": Graces(orphaned_s=1.0),
            "check_memory": False,
        }
        config = SupervisorConfig(**{**options, **changes})
        self._process = await SupervisorProcess.launch(config, command=command)
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for line in self.process.progress():
            self.lines.append(line)
            self._said.set()

    async def until(self, done: Callable[[], object]) -> None:
        """Wait until the progress so far makes it true."""
        async with asyncio.timeout(WAIT_S):
            while not done():
                self._said.clear()
                await self._said.wait()

    async def said(self, kind: type[AnyProgress]) -> AnyProgress:
        await self.until(lambda: any(isinstance(line, kind) for line in self.lines))
        return next(line for line in self.lines if isinstance(line, kind))

    async def exit(self) -> Exit:
        assert self._reading is not None
        async with asyncio.timeout(WAIT_S):
            await self._reading
        last = self.lines[-1]
        assert isinstance(last, Exit)
        return last

    async def ask(self, request: control.AnyRequest) -> Any:
        return await control.request(Path(self.record.control), request)

    async def status(self) -> control.ClusterStatus:
        async with control.ControlClient(Path(self.record.control)) as client:
            return await client.status()

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) != self.mark:
                    continue
                if process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    async def nothing_left(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.processes() or files_in(self.temp):  # noqa: ASYNC110 - foreign processes send us no event
                await asyncio.sleep(0.05)
        assert self.store.list() == []
        assert files_in(self.store.root) == []

    def abandon(self) -> None:
        """Whatever went wrong, leave no process to the next test."""
        for process in self.processes():
            process.kill()


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="as-") as short:  # a socket's path is short
        made = Stage(Path(short), uuid.uuid4().hex)
        made.temp.mkdir()
        monkeypatch.setenv(MARK, made.mark)
        monkeypatch.setenv("TMPDIR", str(made.temp))
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        yield made
        made.abandon()
        tempfile.tempdir = None


async def becomes(pid: int | None, status: str) -> None:
    """Wait until the kernel has done to a process what a signal asked for."""
    async with asyncio.timeout(WAIT_S):
        while psutil.Process(pid).status() != status:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)


class Listener:
    """Hears the events of a cluster, as a recorder would."""

    def __init__(self, record: ClusterRecord) -> None:
        self.events: list[Any] = []
        self._reader: BatchReader[Envelope] = BatchReader(Envelope)
        self._prefix = record.prefix
        self._changed = asyncio.Event()
        self._bus = MqttBus(
            record.broker,
            record.role_credentials().of(Role.OBSERVER),
            client_id="listener",
            on_message=self._on_message,
        )

    async def __aenter__(self) -> Self:
        await self._bus.start()
        await self._bus.subscribe(f"{self._prefix}/event/supervisor", 0)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._bus.close()

    def _on_message(self, topic: str, payload: bytes, _retain: bool) -> None:
        self.events += [envelope.event for envelope in self._reader.read(topic, payload)]
        self._changed.set()

    async def until(self, kind: type, count: int = 1) -> list[Any]:
        async with asyncio.timeout(WAIT_S):
            while len(found := [event for event in self.events if isinstance(event, kind)]) < count:
                self._changed.clear()
                await self._changed.wait()
        return found


# --- the good end ------------------------------------------------------------------------------


async def test_run_that_succeeds_exits_0_and_leaves_only_the_run_directory(stage: Stage) -> None:
    await stage.up()
    ended = await stage.exit()
    assert (ended.code, ended.error) == (0, None)
    done = [line.name for line in stage.lines if isinstance(line, Step) and line.state == "ok"]
    assert sorted(done) == sorted(
        ["broker", "zygote", "recorder", "scheduler", "replica s1", "replica h1"]
    )
    assert done[0] == "broker"
    assert done.index("recorder") < done.index("scheduler") < done.index("replica s1")
    assert [type(line) for line in stage.lines if not isinstance(line, Step)] == [
        Ready,
        TrafficEnded,
        Exit,
    ]
    assert (stage.run_dir / "flushed").read_text() == "SIGTERM"
    logs = files_in(stage.run_dir / "logs")
    assert {"supervisor.log", "scheduler.log", "replica-s1.log", "player.log"} <= set(logs)
    await stage.nothing_left()


async def test_kept_cluster_outlives_traffic_and_foreground_until_it_is_stopped(
    stage: Stage,
) -> None:
    await stage.up(keep=True)
    assert await stage.said(TrafficEnded) == TrafficEnded(kept=True, t=stage.lines[-1].t)
    await stage.process.release()
    status = await stage.status()
    assert (status.state, status.kept) == ("idle", True)
    await stage.ask(control.Stop())
    assert (await stage.exit()).code == 0
    await stage.nothing_left()


async def test_released_cluster_survives_the_end_of_the_lifeline(stage: Stage) -> None:
    await stage.up(plan_path=None)
    await stage.said(Ready)
    await stage.process.release()  # closes the lifeline, too
    assert (await stage.status()).state == "running"
    await stage.ask(control.Stop(drain=False))
    assert (await stage.exit()).code == 0
    await stage.nothing_left()


# --- while it runs -----------------------------------------------------------------------------


async def test_cluster_file_tells_who_runs_where_and_is_private(stage: Stage) -> None:
    await stage.up(plan_path=None)
    await stage.said(Ready)
    record = stage.record
    assert mode_of(stage.store.path(stage.name)) == 0o600
    assert mode_of(record.temp_dir) == 0o700
    assert mode_of(record.control) == 0o600
    assert "@" not in record.broker.url
    names = {process.name for process in record.processes if process.runs()}
    assert names == {"zygote", "recorder", "scheduler", "replica s1", "replica h1"}
    argv = " ".join(word for process in stage.processes() for word in process.cmdline())
    assert not any(login.password in argv for login in record.credentials.values())
    (zygote,) = (one.pid for one in record.processes if one.name == "zygote")
    scratch = Path(psutil.Process(zygote).environ()["TMPDIR"])  # what an engine leaves goes, too
    assert scratch.parent == Path(record.temp_dir)
    (scratch / "left").write_text("by an engine that was killed")
    stage.process.stop()
    await stage.exit()
    await stage.nothing_left()


async def test_second_cluster_of_the_same_name_is_refused(stage: Stage, tmp_path: Path) -> None:
    await stage.up(plan_path=None)
    await stage.said(Ready)
    config = SupervisorConfig(cluster=spec(stage.name), run_dir=str(tmp_path / "other"))
    other = await SupervisorProcess.launch(config, command=COMMAND)
    lines = [line async for line in other.progress()]
    assert isinstance(lines[-1], Exit)
    assert lines[-1].code == 3
    assert lines[-1].error is not None
    assert "runs already" in lines[-1].error.message
    assert (await stage.status()).state == "running"
    stage.process.stop()
    await stage.exit()
    await stage.nothing_left()


async def test_killed_replica_comes_back_and_its_end_is_told(stage: Stage) -> None:
    await stage.up(plan_path=None)
    await stage.said(Ready)
    async with Listener(stage.record) as listener:
        before = next(p.pid for p in (await stage.status()).processes if p.name == "replica s1")
        await stage.ask(control.Kill(target="replica", id="s1"))
        told = await listener.until(ProcessExited)
        assert told == [ProcessExited(name="replica s1", exit_code=-9, restart_in_s=0.5)]
        notice = await stage.said(Notice)
        assert "replica s1 ended (SIGKILL)" in notice.text  # type: ignore[union-attr]
        async with asyncio.timeout(WAIT_S):
            while True:
                after = next(p for p in (await stage.status()).processes if p.name == "replica s1")
                if after.pid not in {None, before}:
                    break
                await asyncio.sleep(0.05)
        assert (after.restarts, after.last_exit) == (1, "SIGKILL")
    stage.process.stop()
    await stage.exit()
    await stage.nothing_left()


async def test_faults_are_carried_out_on_their_time_and_told_with_their_line(
    stage: Stage,
) -> None:
    faults = (
        FaultSpec(at_ns=S // 2, action="kill", target="worker s1", line=11),
        FaultSpec(at_ns=S // 2, action="hang", target="worker h1", line=12),
        FaultSpec(at_ns=S // 2, action="slow", target="s1", factor=2.0, line=13),
        FaultSpec(at_ns=S // 2, action="kill", target="replica nobody", line=14),
    )
    extra = {"player": {"play_s": 60.0}}
    await stage.up(faults=faults, extra=extra)
    await stage.said(Ready)
    async with Listener(stage.record) as listener:
        pids = {r.id: r.worker_pid for r in (await stage.status()).replicas}
        told: list[FaultInjected] = await listener.until(FaultInjected, 4)
        assert [(event.line, event.detail) for event in told] == [
            (11, ""),
            (12, ""),
            (13, ""),
            (14, "not carried out: there is no replica nobody"),
        ]
        await becomes(pids["h1"], psutil.STATUS_STOPPED)
        await becomes(pids["s1"], psutil.STATUS_ZOMBIE)  # its parent never reaps
    stage.process.stop()  # the hung worker must go, too
    assert (await stage.exit()).code == 143
    await stage.nothing_left()


async def test_broker_that_dies_comes_back_with_the_same_address(stage: Stage) -> None:
    await stage.up(plan_path=None)
    await stage.said(Ready)
    async with Listener(stage.record) as listener:
        broker = next(p for p in stage.processes() if "nats-server" in p.name())
        broker.kill()
        told = await listener.until(ProcessExited)
        assert told == [ProcessExited(name="broker", exit_code=-1, restart_in_s=0.5)]
    stage.process.stop()
    assert (await stage.exit()).code == 143
    await stage.nothing_left()


async def test_operator_s_mistakes_are_answered_and_harm_nothing(stage: Stage) -> None:
    await stage.up(plan_path=None)
    await stage.said(Ready)
    for wrong in (control.Kill(target="replica", id="x"), control.Restart(name="x")):
        with pytest.raises(AnyServeError, match="there is no") as refused:
            await stage.ask(wrong)
        assert "s1" in refused.value.hint
    reader, writer = await asyncio.open_unix_connection(stage.record.control)
    writer.write(b'{"op": "dance"}\n')
    assert b'"ok":false' in await reader.readline()
    writer.close()
    stage.process.stop()
    await stage.exit()
    await stage.nothing_left()


REAL = """
version: 1
name: real
cluster:
  capabilities:
    decode: {upgrade: decode.heavy, mid_stream: resume}
    decode.heavy: {mid_stream: resume}
  replicas:
    s1: {capabilities: [decode], engine: {kind: echo, max_model_len: 256}}
    h1: {capabilities: [decode, decode.heavy], engine: {kind: echo, max_model_len: 256}}
  recovery: {limit: 3}
traffic:
  phases: [{name: steady, duration: 3s}]
  streams:
    chat: {capability: decode, rate: 20, prompt_tokens: 16, output_tokens: 8}
faults:
  - {at: 1s, kill: {worker: s1}}
  - {at: 2s, kill: {replica: s1}}
"""


async def test_our_own_nodes_play_a_scenario_and_survive_its_faults(stage: Stage) -> None:
    compiled = compile_scenario(parse_scenario(REAL), seed=1)
    plan = stage.run_dir / "plan.json"
    stage.run_dir.mkdir()
    write_plan(plan, compiled.plan)
    await stage.up(
        SUPERVISOR_COMMAND,
        cluster=msgspec.structs.replace(compiled.cluster, name=stage.name),
        plan_path=str(plan),
        faults=compiled.faults,
        extra={"player": {"run": "r", "scenario": "real"}},
    )
    ended = await stage.exit()
    assert (ended.code, ended.error) == (0, None)
    events = [envelope.event for envelope in read_events(stage.run_dir / "events.jsonl")]
    outcomes = [event.outcome for event in events if isinstance(event, RequestOutcome)]
    assert outcomes == ["completed"] * len(compiled.plan.requests)
    faults = [event for event in events if isinstance(event, FaultInjected)]
    assert [(fault.target, fault.detail) for fault in faults] == [
        ("worker s1", ""),
        ("replica s1", ""),
    ]
    assert any(isinstance(event, RunEnded) for event in events)
    await stage.nothing_left()


def read_events(path: Path) -> list[Envelope]:
    lines = path.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Envelope) for line in lines]


# --- bad starts --------------------------------------------------------------------------------


async def test_replica_that_cannot_start_ends_it_all_with_its_own_error(stage: Stage) -> None:
    await stage.up(extra={"replica": {"missing": "h1"}})
    ended = await stage.exit()
    assert ended.code == 5
    assert ended.error is not None
    assert (ended.error.message, ended.error.code, ended.error.hint) == (
        "replica h1: vLLM is not here",
        "no_vllm",
        "install it",
    )
    assert Step(name="replica h1", state=StepState.FAILED) in [
        Step(name=line.name, state=line.state) for line in stage.lines if isinstance(line, Step)
    ]
    await stage.nothing_left()


async def test_replica_that_is_never_ready_ends_it_all_in_time(stage: Stage) -> None:
    limits = StartLimits(replica_s=0.5)
    await stage.up(extra={"replica": {"never_ready": True}}, limits=limits)
    ended = await stage.exit()
    assert ended.code == 3
    assert ended.error is not None
    assert "not ready after 0.5 s" in ended.error.message
    await stage.nothing_left()


async def test_taken_port_is_a_sentence(stage: Stage) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        await stage.up(broker_port=taken.getsockname()[1])
        ended = await stage.exit()
    assert ended.code == 3
    assert ended.error is not None
    assert "port" in ended.error.hint
    await stage.nothing_left()


async def test_unreachable_broker_is_a_sentence(stage: Stage) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"mqtt://user:pa55word@127.0.0.1:{closed.getsockname()[1]}"
        await stage.up(cluster=spec(stage.name, BrokerSpec(url=url)))
        ended = await stage.exit()
    assert ended.code == 3
    assert ended.error is not None
    assert "no broker answers" in ended.error.message
    assert "pa55word" not in str(stage.lines)
    assert "pa55word" not in (stage.run_dir / "logs/supervisor.log").read_text()
    await stage.nothing_left()


async def test_player_that_crashes_fails_the_run(stage: Stage) -> None:
    await stage.up(extra={"player": {"crash": True}})
    ended = await stage.exit()
    assert ended.code == 3
    assert ended.error is not None
    assert "player ended (SIGABRT)" in ended.error.message
    await stage.nothing_left()


async def test_too_little_memory_starts_nothing(stage: Stage) -> None:
    huge = ReplicaSpec(id="s1", offers=(), engine=EngineSpec(kind="vllm", kv_cache_gib=1_000_000.0))
    cluster = ClusterSpec(name=stage.name, capabilities=(), replicas=(huge,))
    await stage.up(cluster=cluster, check_memory=True)
    ended = await stage.exit()
    assert ended.code == 3
    assert [type(line) for line in stage.lines] == [Exit]
    await stage.nothing_left()


# --- bad ends ----------------------------------------------------------------------------------


async def test_stop_drains_and_flushes(stage: Stage) -> None:
    await stage.up(extra={"player": {"play_s": 600.0}})
    await stage.said(Ready)
    stage.process.stop()
    ended = await stage.exit()
    assert (ended.code, ended.reason) == (143, "SIGTERM")
    assert (stage.run_dir / "flushed").exists()
    await stage.nothing_left()


async def test_stop_during_the_start_ends_it(stage: Stage) -> None:
    await stage.up(extra={"replica": {"never_ready": True}})
    await stage.until(lambda: any("worker" in str(line) for line in stage.lines))
    stage.process.stop()
    assert (await stage.exit()).code == 143
    await stage.nothing_left()


async def test_second_stop_kills(stage: Stage) -> None:
    await stage.up(plan_path=None)
    await stage.said(Ready)
    scheduler = next(p for p in (await stage.status()).processes if p.name == "scheduler")
    assert scheduler.pid is not None
    psutil.Process(scheduler.pid).suspend()
    stage.process.stop()
    stage.process.stop()
    assert (await stage.exit()).code == 143
    await stage.nothing_left()


async def test_second_stop_kills_though_the_first_was_not_heard_yet(stage: Stage) -> None:
    await stage.up(plan_path=None)
    await stage.said(Ready)
    supervisor = psutil.Process(stage.process.pid)
    supervisor.suspend()
    stage.process.stop()
    stage.process.stop()
    supervisor.resume()

    assert (await stage.exit()).code == 143
    assert "NOW" in (stage.run_dir / "logs" / "supervisor.log").read_text()
    await stage.nothing_left()


async def test_supervisor_that_is_killed_leaves_nothing(stage: Stage) -> None:
    await stage.up(extra={"player": {"play_s": 600.0}})
    await stage.said(Ready)
    psutil.Process(stage.process.pid).kill()
    ended = await stage.exit()
    assert ended.code == 70
    assert ended.error is not None
    assert ended.error.code == "supervisor_gone"
    await stage.nothing_left()


async def test_supervisor_killed_with_an_external_broker_leaves_only_that(stage: Stage) -> None:
    elsewhere = stage.run_dir.parent / "elsewhere"
    elsewhere.mkdir()
    tempfile.tempdir = str(elsewhere)
    async with EmbeddedBroker(AccessRules(stage.name)) as broker:
        tempfile.tempdir = None
        cluster = spec(stage.name, BrokerSpec(url=broker.address.url))
        credentials = {role.value: login for role, login in broker.credentials.by_role.items()}
        await stage.up(
            cluster=cluster, credentials=credentials, extra={"player": {"play_s": 600.0}}
        )
        await stage.said(Ready)
        ours = {p.pid for p in stage.processes()}
        psutil.Process(stage.process.pid).kill()
        await stage.exit()
        async with asyncio.timeout(WAIT_S):
            while files_in(stage.temp):  # noqa: ASYNC110 - see nothing_left
                await asyncio.sleep(0.05)
        assert broker.pid in ours
        assert psutil.pid_exists(broker.pid or 0)
    await stage.nothing_left()


FOREGROUND = """
import asyncio, sys, msgspec
from anyserve.runtime.supervisor.config import SupervisorConfig
from anyserve.runtime.supervisor.foreground import SupervisorProcess
from anyserve.runtime.supervisor.progress import Ready

async def main():
    config = msgspec.json.decode(sys.argv[1], type=SupervisorConfig)
    process = await SupervisorProcess.launch(config, command=sys.argv[2:])
    async for line in process.progress():
        if isinstance(line, Ready):
            print("ready", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("keep", [False, True])
async def test_foreground_that_is_killed_takes_an_unkept_cluster_along(
    stage: Stage, *, keep: bool
) -> None:
    config = SupervisorConfig(
        cluster=spec(stage.name),
        run_dir=str(stage.run_dir),
        plan_path="plan.json",
        keep=keep,
        extra={"player": {"play_s": 600.0}},
        graces=Graces(orphaned_s=1.0),
    )
    foreground = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        FOREGROUND,
        msgspec.json.encode(config).decode(),
        *COMMAND,
        stdout=asyncio.subprocess.PIPE,
    )
    assert foreground.stdout is not None
    async with asyncio.timeout(WAIT_S):
        assert await foreground.stdout.readline() == b"ready\n"
    foreground.kill()
    await foreground.wait()
    if keep:
        assert (await stage.status()).state == "running"
        await stage.ask(control.Stop(drain=False))
    await stage.nothing_left()
