"""One cluster: the order of its start, what runs beside it, and its complete end."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

from anyserve.core.events import AnyEvent, ProcessExited
from anyserve.core.placement import Placement
from anyserve.core.spec import IngressSpec, ReplicaSpec
from anyserve.errors import AnyServeError, StartError
from anyserve.runtime.clusters import ClusterStore
from anyserve.runtime.ingress.doors import door_name, has_cluster_doors, has_replica_doors
from anyserve.runtime.placing import place_engines
from anyserve.runtime.process import Incarnations, boot_id
from anyserve.runtime.supervisor.brokers import ClusterBroker, mind_broker
from anyserve.runtime.supervisor.children import Child, ChildSpec
from anyserve.runtime.supervisor.config import SupervisorConfig
from anyserve.runtime.supervisor.deaths import PLAYER, RECORDER, SCHEDULER, Deaths
from anyserve.runtime.supervisor.ending import Ending, Urgency
from anyserve.runtime.supervisor.faults import FaultExecutor, plan_faults
from anyserve.runtime.supervisor.hands import ClusterHands, signal_process
from anyserve.runtime.supervisor.home import Home
from anyserve.runtime.supervisor.link import SOURCE, ClusterLink
from anyserve.runtime.supervisor.memory import counts_memory
from anyserve.runtime.supervisor.nodes import (
    INGRESS,
    Command,
    Nodes,
    node_command,
    replica_name,
)
from anyserve.runtime.supervisor.progress import AnyProgress, Notice, Step, StepState
from anyserve.runtime.supervisor.record import RecordKeeper
from anyserve.runtime.supervisor.roster import Roster
from anyserve.runtime.supervisor.view import ClusterView

_LOG = logging.getLogger(__name__)
_UNKNOWN_EXIT: Final = -1
_RUN_ENDED_S: Final = 2.0
_WORKERS_GONE_S: Final = 1.0
_POLL_S: Final = 0.02


class Cluster:
    """`start_broker`, `start_nodes`, `play`, and whatever happens `tear_down`.

    `deaths.over` tells that there is nothing left to do. `say` takes progress. `command` makes
    the commands of our processes, `place` plans their GPUs; tests replace them.
    """

    def __init__(
        self,
        config: SupervisorConfig,
        say: Callable[[AnyProgress], None],
        *,
        store: ClusterStore,
        environ: Mapping[str, str],
        command: Command = node_command,
        place: Callable[..., Placement] = place_engines,
    ) -> None:
        self.config = config
        self.created_s = time.time()
        self.view = ClusterView(f"anyserve/{config.cluster.name}", self._on_worker)
        self.broker = ClusterBroker(config, environ)
        self.deaths = Deaths(self.emit, self._notice)
        self.children = Roster(self.deaths.on_exit, self._save)
        self._began_s = time.monotonic()
        self._say = say
        self._record = RecordKeeper(store)
        self._command = command
        self._place = place
        self._environ = environ
        self._placement = Placement()
        self._incarnations = Incarnations()
        self._boot_id = boot_id()
        self._home: Home | None = None
        self._nodes: Nodes | None = None
        self._link: ClusterLink | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loading: set[str] = set()

    @property
    def home(self) -> Home:
        """Where its files are; known once the broker is up."""
        assert self._home is not None
        return self._home

    @property
    def hands(self) -> ClusterHands:
        """What faults and operators act with.

        Raises:
            AnyServeError: the cluster has not come so far yet.
        """
        if self._link is None:
            raise AnyServeError("the cluster is still starting", code="still_starting")
        return ClusterHands(
            self.children, self.view, self._link.speaker, self.broker, self.home.node_socket
        )

    @property
    def uptime_s(self) -> float:
        """Seconds since it began."""
        return round(time.monotonic() - self._began_s, 3)

    async def start_broker(self) -> None:
        """Start the broker, take the cluster's name, connect.

        Raises:
            AnyServeError: what failed, as a sentence with a hint.
        """
        config = self.config
        self._record.refuse_live(config.cluster.name)
        plan_faults(config.faults)  # what cannot be carried out is said now, not mid-run
        self._placement = await asyncio.to_thread(
            self._place,
            config.cluster.replicas,
            self._environ,
            check_memory=counts_memory(config, self._environ),
        )
        self._step("broker", StepState.STARTED)
        try:
            await self._connect()
        except AnyServeError:
            self._step("broker", StepState.FAILED)
            raise
        self._step("broker", StepState.OK, self.broker.address.url)

    async def _connect(self) -> None:
        config, broker = self.config, self.broker
        self._home = await broker.start()
        self._home.open_objects()
        self._record.claim(config, broker, self._home, self.created_s)
        self._link = ClusterLink(
            broker.address,
            broker.credentials,
            config.cluster.name,
            self.view,
            incarnation=self._incarnations.next(SOURCE),
            boot=self._boot_id,
        )
        for warning in await self._link.start(external=broker.embedded is None):
            self._notice(warning)
        if broker.embedded is not None:
            self._spawn(self._mind_broker(), "mind the broker")
        self._nodes = Nodes(
            config,
            self._home,
            broker.address,
            broker.credentials,
            self._boot_id,
            self._incarnations,
            self._placement,
            self._command,
        )

    async def start_nodes(self) -> None:
        """Start all but the player, and wait until all of it is ready.

        Raises:
            AnyServeError: what failed, as a sentence with a hint; maybe within a group.
        """
        nodes = self._nodes
        assert nodes is not None
        async with asyncio.TaskGroup() as group:
            # Its imports take longest, but who wants a worker meanwhile waits in its socket.
            group.create_task(self._start_zygote(nodes))
            await self._start_core(nodes)
            for replica in self.config.cluster.replicas:
                group.create_task(self._start_replica(nodes, replica))
            settings = self.config.cluster.ingress
            if settings is not None and has_cluster_doors(settings):
                group.create_task(self._start_ingress(nodes, settings))

    async def play(self) -> None:
        """Start the player, and the faults at its first word.

        Raises:
            StartError: it cannot be executed.
        """
        assert self._nodes is not None
        if self.config.plan_path is None:
            return
        self._step("traffic", StepState.STARTED)
        self._spawn(self._carry_out_faults(), "faults")
        await self.children.start(self._nodes.player())

    async def end_run(self) -> None:
        """Player first, then the recorder, so that the run's last word is on disk. Repeatable."""
        self.deaths.expected |= {PLAYER, RECORDER}
        for task in self._tasks:
            if task.get_name() == "faults":
                task.cancel()
        await self.children.stop([PLAYER])
        player = self.children.get(PLAYER)
        if player is not None and player.last_exit is not None and player.last_exit.exit_code == 0:
            try:
                async with asyncio.timeout(_RUN_ENDED_S):
                    await self.view.run_ended.wait()
            except TimeoutError:
                _LOG.warning("the player left without saying that the run has ended")
        await self.children.stop([RECORDER])

    async def tear_down(self) -> None:
        """Stop everything in order, leave nothing. `hurry` beside it shortens it."""
        self.deaths.ending = True
        try:
            # Before all others: what clients wait for may still be answered, and recorded.
            await self.children.stop([INGRESS, PLAYER])
            await self.end_run()
            await self.children.stop(name for name in self.children if _is_replica(name))
            await self.children.stop([SCHEDULER])
            await self.children.stop(self.children)
            await self._bury_workers()
        finally:
            await self._close()

    async def hurry(self, ending: Ending) -> None:
        """Shorten the end when it is wished urgently; runs beside everything else."""
        await ending.reached(Urgency.FAST)
        if PLAYER in self.children:
            # It would drain, which takes longest. The others have `orphaned_s` to end in order.
            self.children[PLAYER].kill()
        if INGRESS in self.children:
            self.children[INGRESS].kill()
        try:
            async with asyncio.timeout(self.config.graces.orphaned_s):
                await ending.reached(Urgency.NOW)
        except TimeoutError:
            _LOG.warning("what has not ended by now is killed")
        self.children.kill()

    # --- starting ------------------------------------------------------------------------------

    async def _start_zygote(self, nodes: Nodes) -> None:
        zygote = await self._begin(nodes.zygote())
        listens = _until_exists(self.home.zygote_socket)
        await self._finish(zygote, zygote.wait_for(listens, self.config.limits.zygote_s))

    async def _start_core(self, nodes: Nodes) -> None:
        limits = self.config.limits
        # The recorder first: nothing may happen that is not recorded.
        recorder = await self._begin(nodes.recorder())
        await self._finish(recorder, recorder.wait_ready(limits.recorder_s))
        scheduler = await self._begin(nodes.scheduler())
        await self._finish(scheduler, scheduler.wait_ready(limits.scheduler_s))

    async def _start_replica(self, nodes: Nodes, replica: ReplicaSpec) -> None:
        child = await self._begin(nodes.replica(replica))
        incarnation = nodes.last_incarnation[child.name]
        self._loading.add(child.name)
        serving = self._until_serving(replica.id, incarnation)
        await self._finish(child, child.wait_for(serving, self.config.limits.replica_s))

    async def _until_serving(self, replica: str, incarnation: int) -> None:
        await self.view.until_serving(replica, incarnation)
        settings = self.config.cluster.ingress
        if settings is not None and has_replica_doors(settings):
            await self.view.until_open(door_name(replica))

    async def _start_ingress(self, nodes: Nodes, settings: IngressSpec) -> None:
        child = await self._begin(nodes.ingress(settings))
        opened = self.view.until_open(INGRESS)
        await self._finish(child, child.wait_for(opened, self.config.limits.ingress_s))

    async def _begin(self, spec: ChildSpec) -> Child:
        self._step(spec.name, StepState.STARTED)
        self.deaths.expected.add(spec.name)
        return await self.children.start(spec)

    async def _finish(self, child: Child, ready: Awaitable[None]) -> None:
        try:
            await ready
        except AnyServeError:
            self._step(child.name, StepState.FAILED)
            raise
        finally:
            self._loading.discard(child.name)
        self.deaths.expected.discard(child.name)
        self._step(child.name, StepState.OK, self._addresses(child.name))

    def _addresses(self, name: str) -> str:
        """Where clients reach a process that has front doors; else empty."""
        replica = name.removeprefix(replica_name(""))
        opened = self.view.doors.get(INGRESS if name == INGRESS else door_name(replica))
        return "" if opened is None else "  ".join(filter(None, (opened.http, opened.grpc)))

    # --- while it runs -------------------------------------------------------------------------

    async def _mind_broker(self) -> None:
        assert self.broker.embedded is not None
        try:
            await mind_broker(
                self.broker.embedded, self._on_broker_exit, ordered=self.broker.ordered_down_s
            )
        except StartError as error:
            self.deaths.broker_gone(error.message)
        else:
            self.deaths.broker_gone("the broker ended too often and stays down")

    def _on_broker_exit(self, delay_s: float | None) -> None:
        if delay_s is not None:
            self._notice(f"the broker ended, starts again in {delay_s:g} s")
            self.emit(ProcessExited(name="broker", exit_code=_UNKNOWN_EXIT, restart_in_s=delay_s))

    async def _carry_out_faults(self) -> None:
        executor = FaultExecutor(
            plan_faults(self.config.faults), self.hands, self.emit, now_ns=time.monotonic_ns
        )
        await executor.run(await asyncio.shield(self.view.run_started))

    def _on_worker(self, replica: str, text: str) -> None:
        if replica_name(replica) in self._loading:
            self._step(replica_name(replica), StepState.PROGRESS, text)

    # --- the end -------------------------------------------------------------------------------

    async def _bury_workers(self) -> None:
        """Workers leave with their replica; one that does not is killed."""
        left = [view.worker for view in self.view.replicas.values() if view.worker is not None]
        try:
            async with asyncio.timeout(_WORKERS_GONE_S):
                while any(worker.runs() for worker in left):  # noqa: ASYNC110 - not our children
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            for worker in left:
                if signal_process(worker, signal.SIGKILL):
                    _LOG.warning("%s (pid %d) had to be killed", worker.name, worker.pid)

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._link is not None:
            await self._link.close()
        await self.broker.close()
        self._record.release()

    # --- small things --------------------------------------------------------------------------

    def emit(self, event: AnyEvent) -> None:
        """Say an event as the supervisor."""
        if self._link is not None:
            self._link.speaker.emit(event)

    def _notice(self, text: str) -> None:
        _LOG.warning("%s", text)
        self._say(Notice(text=text, t=self.uptime_s))

    def _step(self, name: str, state: StepState, detail: str = "") -> None:
        self._say(Step(name=name, state=state, detail=detail, t=self.uptime_s))

    def _save(self) -> None:
        self._record.save(self.children.processes)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("the task %r failed", task.get_name(), exc_info=task.exception())


async def _until_exists(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - no event tells it; the check is instant
        await asyncio.sleep(_POLL_S)


def _is_replica(name: str) -> bool:
    return name.startswith(replica_name(""))
