"""A whole cluster under test: real broker, real processes, heard as an observer hears it.

Everything waits for events, never for time. `close` proves of each cluster that it stopped in
order, left nothing behind, logged no bug, and recorded a log that breaks no invariant.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import psutil
import pytest

from anyserve.core.effects import Outcome
from anyserve.core.events import (
    Envelope,
    ProcessExited,
    RequestDelegated,
    RequestOutcome,
)
from anyserve.core.messages import Limits, Offer
from anyserve.core.spec import (
    CapabilitySpec,
    ClusterSpec,
    EngineSpec,
    LadderSpec,
    ReplicaSpec,
)
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.bus.outbox import BatchReader
from anyserve.runtime.clusters import ClusterRecord, ClusterStore, state_dir
from anyserve.runtime.engines.base import Sampling
from anyserve.runtime.engines.deterministic import echoed
from anyserve.runtime.origin import Draft, Handle, OriginClient
from anyserve.runtime.process import boot_id
from anyserve.runtime.supervisor import control
from anyserve.runtime.supervisor.config import Graces, SupervisorConfig
from anyserve.runtime.supervisor.foreground import SupervisorProcess
from anyserve.runtime.supervisor.progress import AnyProgress, Exit, Ready
from anyserve.telemetry.gaps import GapCounter
from anyserve.telemetry.invariants import Rules, check_invariants
from anyserve.telemetry.log import EventLogWriter, ReadReport, merge, read_events

MARK = "ANYSERVE_TEST_MARK"
WAIT_S = 60.0
_TOLD = 30
"""Lines of a log from an error on: enough for a traceback."""
E = TypeVar("E")
P = TypeVar("P", bound=AnyProgress)


# --- what clusters are made of -------------------------------------------------------------------


def echo(max_model_len: int = 4096, **changes: Any) -> EngineSpec:
    """An engine that says the prompt again, one token each 10 ms."""
    options = {"kind": "echo", "max_model_len": max_model_len, "step_ms": 10.0, **changes}
    return EngineSpec(**options)


def replica(
    name: str, *offers: str, max_tokens: int | None = None, engine: EngineSpec, **changes: Any
) -> ReplicaSpec:
    """A replica that offers these capabilities up to `max_tokens`."""
    limits = Limits(max_tokens=max_tokens)
    offered = tuple(Offer(capability=offer, limits=limits) for offer in offers)
    return ReplicaSpec(id=name, offers=offered, engine=engine, **changes)


def two_rungs(
    *,
    small: dict[str, Any] | None = None,
    large: dict[str, Any] | None = None,
    capabilities: Iterable[CapabilitySpec] = (),
    **changes: Any,
) -> ClusterSpec:
    """`decode` up to 256 tokens on s1, `decode.heavy` and `capabilities` up to 2048 on h1."""
    s1: dict[str, Any] = {"engine": echo(256), "concurrency": 2, **(small or {})}
    h1: dict[str, Any] = {"engine": echo(2048), "concurrency": 2, **(large or {})}
    more = tuple(capabilities)
    heavy = ("decode.heavy", *(one.name for one in more))
    return ClusterSpec(
        name=f"t-{uuid.uuid4().hex[:8]}",
        capabilities=(
            CapabilitySpec(name="decode", mid_stream="resume"),
            CapabilitySpec(name="decode.heavy", mid_stream="resume"),
            *more,
        ),
        ladder=LadderSpec(upgrades={"decode": "decode.heavy"}),
        replicas=(
            replica("s1", "decode", max_tokens=256, **s1),
            replica("h1", *heavy, max_tokens=2048, **h1),
        ),
        **changes,
    )


def draft(
    capability: str, prompt: int = 20, tokens: int = 8, entry: str = "scheduler", **changes: Any
) -> Draft:
    """A request; its prompt is 1, 2, 3 ..., so the echo's answer is known."""
    changes.setdefault("sampling", Sampling(max_tokens=tokens))
    return Draft(
        capability=capability,
        prompt_ids=list(range(1, prompt + 1)),
        max_tokens=tokens,
        entry=entry,
        **changes,
    )


def whole_answer(wanted: Draft) -> dict[int, list[int]]:
    """All that the echo engine answers, per choice."""
    return {
        choice: echoed(wanted.prompt_ids, 0, wanted.max_tokens, choice)
        for choice in range(wanted.sampling.n)
    }


async def outcome(handle: Handle) -> Outcome:
    """How it ended."""
    async with asyncio.timeout(WAIT_S):
        return await handle.outcome


async def tokens_came(handle: Handle, count: int) -> None:
    """Return once a streamed request has got so many tokens; the stream may be read on."""
    async with asyncio.timeout(WAIT_S):
        async for _ in handle:
            if sum(map(len, handle.tokens.values())) >= count:
                return
    pytest.fail(f"{handle.id} ended before {count} tokens came: {handle.outcome}")


# --- hearing -------------------------------------------------------------------------------------


class Watcher:
    """An observer's connection: every message on the broker, and every event, in order."""

    def __init__(self, record: ClusterRecord) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.events: list[Envelope] = []
        self.prefix = record.prefix
        self._reader: BatchReader[Envelope] = BatchReader(Envelope)
        self._known = GapCounter()  # after a broker's restart processes say their last events again
        self._changed = asyncio.Event()
        self._bus = MqttBus(
            record.broker,
            record.role_credentials().of(Role.OBSERVER),
            client_id=f"watcher-{uuid.uuid4().hex[:8]}",
            on_message=self._on_message,
        )

    async def start(self) -> None:
        await self._bus.start()
        await self._bus.subscribe("anyserve/#", 0)

    async def close(self) -> None:
        await self._bus.close()

    def _on_message(self, topic: str, payload: bytes, _retain: bool) -> None:
        self.messages.append((topic, payload))
        if topic.startswith(f"{self.prefix}/event/"):
            self.events += (
                one
                for one in self._reader.read(topic, payload)
                if self._known.add(one.source, one.incarnation, one.seq)
            )
        self._changed.set()

    def mark(self) -> int:
        """Now, for `since`: events that were heard before are of no interest."""
        return len(self.events)

    def find(self, kind: type[E], /, *, since: int = 0, **fields: Any) -> list[E]:
        """All events of this kind with these fields."""
        return [
            one.event
            for one in self.events[since:]
            if isinstance(one.event, kind)
            and all(getattr(one.event, name) == value for name, value in fields.items())
        ]

    async def until(self, done: Callable[[], Any], what: str = "") -> None:
        """Wait until what was heard makes it true."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            heard = "\n".join(str(one.event) for one in self.events[-30:])
            pytest.fail(f"never heard: {what}; the last events were\n{heard}")

    async def event(self, kind: type[E], /, *, since: int = 0, **fields: Any) -> E:
        """The first event of this kind with these fields, waited for."""
        await self.until(
            lambda: self.find(kind, since=since, **fields), f"{kind.__name__} {fields}"
        )
        return self.find(kind, since=since, **fields)[0]

    def about(self, request_id: str) -> list[Envelope]:
        """All that was said of a request."""
        return [one for one in self.events if getattr(one.event, "id", None) == request_id]


# --- the cluster ---------------------------------------------------------------------------------


class LiveCluster:
    """One supervisor and all it started. `up` it, use it, `close` it (in this order, once)."""

    def __init__(self, spec: ClusterSpec) -> None:
        self.spec = spec
        self.mark = uuid.uuid4().hex
        self.directory = Path(tempfile.mkdtemp(prefix="as-"))  # a socket's path is short
        self.run_dir = self.directory / "run"
        self.temp = self.directory / "tmp"
        self.lines: list[AnyProgress] = []
        self.whole_log = True
        """Whether its log must have no gaps; tests that end the broker say no."""
        self.raising: set[str] = set()
        """Logs in which tracebacks are expected: of workers whose handlers raise on purpose."""
        self._process: SupervisorProcess | None = None
        self._reading: asyncio.Task[None] | None = None
        self._said = asyncio.Event()
        self._watcher: Watcher | None = None
        self._record: ClusterRecord | None = None
        self._origins: list[tuple[OriginClient, EventLogWriter]] = []
        self._named = 0

    async def up(self, *, ready_s: float = WAIT_S, **changes: Any) -> Self:
        """Launch it and wait until it is ready; real engines may need longer."""
        try:
            await self.launch(**changes)
            await self.said(Ready, ready_s)
            self._record = self.store.find(self.spec.name)
            self._watcher = Watcher(self.record)
            await self.watcher.start()
        except BaseException:
            await self.abandon()
            raise
        return self

    async def launch(self, **changes: Any) -> None:
        """Start the supervisor, and wait for nothing."""
        self.temp.mkdir()
        (self.run_dir / "logs").mkdir(parents=True)
        config = SupervisorConfig(
            cluster=self.spec,
            run_dir=str(self.run_dir),
            **{"check_memory": False, "graces": Graces(orphaned_s=1.0), **changes},
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(MARK, self.mark)
            patch.setenv("TMPDIR", str(self.temp))
            patch.setenv("XDG_STATE_HOME", str(self.directory / "state"))
            patch.setattr(tempfile, "tempdir", str(self.temp))
            self._process = await SupervisorProcess.launch(config)
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for line in self.process.progress():
            self.lines.append(line)
            self._said.set()

    @property
    def process(self) -> SupervisorProcess:
        assert self._process is not None
        return self._process

    @property
    def store(self) -> ClusterStore:
        return ClusterStore(state_dir({"XDG_STATE_HOME": str(self.directory / "state")}))

    @property
    def record(self) -> ClusterRecord:
        assert self._record is not None
        return self._record

    @property
    def watcher(self) -> Watcher:
        assert self._watcher is not None
        return self._watcher

    async def said(self, kind: type[P], wait_s: float = WAIT_S) -> P:
        """The first progress line of this kind, waited for; fails where the cluster ends first."""
        found: list[P] = []
        async with asyncio.timeout(wait_s):
            while not found:
                found = [line for line in self.lines if isinstance(line, kind)]
                if not found and any(isinstance(line, Exit) for line in self.lines):
                    pytest.fail(f"the cluster ended: {self.lines[-1]}")
                if not found:
                    self._said.clear()
                    await self._said.wait()
        return found[0]

    # --- asking ---------------------------------------------------------------------------------

    async def origin(self) -> OriginClient:
        """A connected origin of its own, logged like the player's; closed with the cluster."""
        self._named += 1
        name = f"o{self._named}"
        log = EventLogWriter(self.run_dir / f"origin-{name}.jsonl")
        client = OriginClient(
            address=self.record.broker,
            credential=self.record.role_credentials().of(Role.ORIGIN),
            prefix=self.record.prefix,
            name=name,
            cluster=self.spec,
            incarnation=time.time_ns() // 1_000_000,
            boot=boot_id(),
            tee=log.write,
        )
        self._origins.append((client, log))
        await client.start(scheduler_s=WAIT_S)
        return client

    async def bus(self, role: Role) -> MqttBus:
        """A connection that says what it wants, with a role's credential. Its user closes it."""
        bus = MqttBus(
            self.record.broker,
            self.record.role_credentials().of(role),
            client_id=f"test-{uuid.uuid4().hex[:8]}",
            on_message=lambda _topic, _payload, _retain: None,
        )
        await bus.start()
        return bus

    async def ask(self, request: control.AnyRequest) -> Any:
        """One request on the control socket."""
        return await control.request(Path(self.record.control), request, timeout_s=WAIT_S)

    async def pid(self, name: str) -> int:
        """Of the process that `status` calls so; `worker ID` and `broker` go, too."""
        if name == "broker":
            return next(p.pid for p in self.processes() if "nats" in p.name())
        status = msgspec.convert(await self.ask(control.Status()), control.ClusterStatus)
        if name.startswith("worker "):
            pids = {f"worker {one.id}": one.worker_pid for one in status.replicas}
        else:
            pids = {one.name: one.pid for one in status.processes}
        pid = pids[name]
        assert pid is not None, f"{name} does not run"
        return pid

    async def kill(self, name: str) -> None:
        """SIGKILL, as the kernel or a bad day does it: the supervisor was not told."""
        os.kill(await self.pid(name), signal.SIGKILL)

    # --- the end ----------------------------------------------------------------------------------

    async def close(self) -> None:
        """Stop it in order, and prove that all was well."""
        try:
            await self.leave()
            self.process.stop()
            ended = await self.exit()
            if (ended.code, ended.error) != (143, None):
                pytest.fail(f"it did not end well: {ended}")
            await self.nothing_left()
            if bugs := self.bugs():
                pytest.fail("\n".join(bugs))
            self.check_log()
        finally:
            await self.abandon()

    async def leave(self) -> None:
        """Close what this test process itself has open there."""
        for client, log in self._origins:
            await client.close()
            log.close()
        self._origins.clear()
        if self._watcher is not None:
            await self._watcher.close()
            self._watcher = None

    async def exit(self) -> Exit:
        """The supervisor's last line."""
        assert self._reading is not None
        async with asyncio.timeout(WAIT_S):
            await self._reading
        last = self.lines[-1]
        assert isinstance(last, Exit)
        return last

    def processes(self) -> list[psutil.Process]:
        """All that run with this cluster's mark in their environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) != self.mark:
                    continue
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    async def nothing_left(self) -> None:
        """No process, no file outside the run directory, no cluster file."""
        try:
            async with asyncio.timeout(WAIT_S):
                while self.processes() or any(self.left_files()):  # noqa: ASYNC110 - foreign processes send us no event
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"left behind: {self.processes()} {self.left_files()}")
        assert self.store.list() == []
        root = self.store.root
        assert not root.exists() or list(root.iterdir()) == []

    def left_files(self) -> list[Path]:
        """Temporary files of its own, objects in shared memory among them."""
        objects = [] if self._record is None else [Path(self._record.objects)]
        return [*self.temp.iterdir(), *(path for path in objects if path.exists())]

    def bugs(self) -> list[str]:
        """What its logs tell of errors nobody foresaw: the logs go with the cluster."""
        found = []
        for path in sorted((self.run_dir / "logs").glob("*.log")):
            if path.name in self.raising:
                continue
            lines = path.read_text(errors="replace").splitlines()
            for number, line in enumerate(lines):
                if line.startswith("Traceback") or "a bug of ours" in line:
                    told = lines[max(0, number - 2) : number + _TOLD]
                    found.append("\n".join([f"{path.name}:", *told]))
        return found

    def events(self, report: ReadReport | None = None) -> list[Envelope]:
        """The recorded log, complete once the cluster has ended."""
        paths = [self.run_dir / "events.jsonl", *sorted(self.run_dir.glob("origin-*.jsonl"))]
        return merge(list(self._read_log(path, report)) for path in paths)

    def _read_log(self, path: Path, report: ReadReport | None) -> Iterator[Envelope]:
        return read_events(path, report)

    def check_log(self) -> None:
        """The log is whole and breaks no invariant."""
        events = self.events()
        if not any(isinstance(one.event, RequestOutcome) for one in events):
            pytest.fail("the log tells of no request")
        if not self.whole_log:
            return
        rules = Rules(
            delegation_limit=self.spec.delegation.limit,
            ladder=self.spec.ladder.upgrades,
            queue_limits={one.name: one.queue_limit for one in self.spec.capabilities},
        )
        broken = [str(one) for one in check_invariants(events, rules)]
        if broken:
            pytest.fail("\n".join(broken))

    async def abandon(self) -> None:
        """Whatever went wrong, leave nothing to the next test."""
        await self.leave()
        for process in self.processes():
            process.kill()
        if self._process is not None:
            await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        shutil.rmtree(self.directory, ignore_errors=True)


# --- reading a log -------------------------------------------------------------------------------


def delegations(events: Iterable[Envelope], request_id: str) -> list[RequestDelegated]:
    """The delegations of a request."""
    return [
        one.event
        for one in events
        if isinstance(one.event, RequestDelegated) and one.event.id == request_id
    ]


def exits(events: Iterable[Envelope]) -> list[str]:
    """Names of the processes that ended, in order."""
    return [one.event.name for one in events if isinstance(one.event, ProcessExited)]
