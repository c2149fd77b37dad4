"""A replica's process: `core.Replica`, its worker, and the keepers that start both again."""

from __future__ import annotations

from typing import Any, Final

from anyserve.core.effects import CancelWork, Command, StartWork
from anyserve.core.events import ProcessExited, WorkerChanged
from anyserve.core.inputs import Stepped, WorkerDied, WorkerReady
from anyserve.core.messages import Control, Gone
from anyserve.core.replica import Replica
from anyserve.core.spec import ReplicaSpec
from anyserve.sim.engines import EngineSetup
from anyserve.sim.process import Process
from anyserve.sim.worker import Worker
from anyserve.sim.world import World

SECOND: Final = 1_000_000_000
BACKOFF_NS: Final = SECOND // 2
"""Before a process or a worker is started again, as the live keepers wait."""
SILENCE_NS: Final = 10 * SECOND
"""A worker that hangs so long is killed, as the live keeper does."""


class ReplicaProcess(Process):
    """All lives of one replica. `place`: its number in the cluster."""

    def __init__(self, world: World, spec: ReplicaSpec, place: int, setup: EngineSetup) -> None:
        super().__init__(spec.id, world)
        self._worker: Worker | None = None
        self.spec = spec
        self.ready = False
        """Whether its worker has ever been ready in this life."""
        self._place = place
        self._setup = setup
        self._worker_life = 0
        self._cut_off = False
        self._load_ns = setup.load_ns or world.sim.load_ns

    # --- the process -----------------------------------------------------------------------------

    def start(self) -> None:
        """A new life of the process, and of its worker."""
        world = self._world
        machine = Replica(
            self.spec,
            world.cluster,
            incarnation=self.incarnation + 1,
            explains=world.sample.took,
        )
        self._begin(machine)
        self._cut_off = False
        self._carry_out(machine.start(self._kernel.now), self._kernel.now)
        self.connect()
        self._start_worker(None)

    def kill(self) -> None:
        """SIGKILL for the process and with it the worker; the supervisor starts it again."""
        if not self.alive:
            return
        self.flush()
        incarnation, connection = self.incarnation, self.connection
        self.die()
        self._lose_worker()
        self.ready = False
        world = self._world
        gone = Gone(source=self.name, incarnation=incarnation, connection=connection)
        if world.broker_up:
            self._network.send("broker", world.scheduler, gone)
        restart_ns = BACKOFF_NS + world.sim.boot_ns
        backoff_s = BACKOFF_NS / SECOND
        exited = ProcessExited(name=f"replica-{self.name}", exit_code=-9, restart_in_s=backoff_s)
        world.supervisor.say(exited, self._kernel.now)
        self._kernel.at(self._kernel.now + restart_ns, self._restart, None)

    def hear(self, message: Any) -> None:
        """See `Process`. What concerns the worker alone is taken out before the machine."""
        if type(message) is Control and message.action == "slow":
            self.slow(message.factor)
        else:
            super().hear(message)

    def wake(self) -> None:
        """See `Process`. Before a heartbeat the worker says how full its memory is."""
        machine = self._machine
        beats = isinstance(machine, Replica) and self._kernel.now >= machine.beats_ns
        if beats and self._worker is not None and self._frozen is None:
            self.hear(Stepped(deltas=[], kv_usage=self._worker.kv_usage()))
        super().wake()

    def flush(self) -> None:
        """Send the tokens that are made by now: something is about to happen."""
        if self._worker is not None and self.alive:
            self._worker.flush()

    def freeze(self) -> None:
        """See `Process`."""
        self.flush()
        super().freeze()

    def thaw(self) -> None:
        """See `Process`. Where the broker has closed the connection, what waited is lost."""
        if self._cut_off:
            self._cut_off = False
            self._frozen = None
            self.disconnect()
            self.connect()
        else:
            super().thaw()

    @property
    def frozen(self) -> bool:
        """Whether the process stands still."""
        return self._frozen is not None

    def lose_connection(self) -> None:
        """The broker closed the connection of a process that stands still."""
        self._cut_off = True

    # --- the worker ------------------------------------------------------------------------------

    def kill_worker(self, reason: str = "killed by SIGKILL") -> None:
        """The worker is gone with all it ran; the replica starts another."""
        if not self.alive or self._worker is None:
            return
        self.flush()
        self._lose_worker()
        self.say(WorkerChanged(replica=self.name, state="exited", detail=reason))
        self.hear(WorkerDied(reason=reason))
        self._kernel.at(self._kernel.now + BACKOFF_NS, self._start_worker, self._worker_life)

    def hang_worker(self) -> None:
        """The worker stops in its tracks; after a while it counts as hung and is killed."""
        if self._worker is not None:
            self.flush()
            self._worker.hang()
            life = self._worker_life
            self._kernel.at(self._kernel.now + SILENCE_NS, self._give_up_on, life)

    def resume_worker(self) -> None:
        """The worker goes on, if it was not killed meanwhile."""
        if self._worker is not None:
            self._worker.resume()

    def slow(self, factor: float) -> None:
        """Each step takes `factor` times as long."""
        if self._worker is not None:
            self._worker.slow(factor)

    def _start_worker(self, after: int | None) -> None:
        if not self.alive or (after is not None and after != self._worker_life):
            return
        self._worker_life += 1
        self.say(WorkerChanged(replica=self.name, state="started"))
        self._kernel.at(self._kernel.now + self._load_ns, self._worker_ready, self._worker_life)

    def _worker_ready(self, life: int) -> None:
        if life != self._worker_life or not self.alive:
            return
        self._worker = Worker(
            self._kernel,
            self._place,
            self._setup,
            self,
            exact=self._world.exact,
            handover_ns=self._world.sim.handover_ns,
            host=self._world.host,
        )
        self.ready = True
        engine = f"model of {self._setup.name}"
        self.say(
            WorkerChanged(
                replica=self.name, state="ready", detail=engine, ready_s=self._load_ns / SECOND
            )
        )
        self.hear(WorkerReady(max_tokens=self._setup.context, engine=engine))

    def _give_up_on(self, life: int) -> None:
        if life == self._worker_life and self._worker is not None and self._worker.hung:
            text = f"no heartbeat for {SILENCE_NS / SECOND:.1f} s"
            self.say(WorkerChanged(replica=self.name, state="hung", detail=text))
            self.kill_worker("killed: it hung")

    def _lose_worker(self) -> None:
        if self._worker is not None:
            self._worker.die()
        self._worker = None
        self._worker_life += 1

    def _restart(self, _: None) -> None:
        if not self.alive:
            self.start()

    # --- effects ---------------------------------------------------------------------------------

    def _perform(self, effect: Command) -> None:
        if self._worker is None:
            return
        if isinstance(effect, StartWork):
            request = effect.request
            self._worker.submit(effect, self._world.player.segments(request.id))
            if request.deadline is not None:
                # What was made in time reaches the origin before it gives up.
                latency_ns = self._world.sim.network.latency_ns
                at_ns = request.deadline.at_ns - latency_ns - 1
                key = (request.id, effect.attempt)
                self._kernel.at(at_ns, self._flush_one, (self._worker, key))
        elif isinstance(effect, CancelWork):
            self._worker.cancel(effect.id, effect.attempt)

    def _flush_one(self, what: tuple[Worker, tuple[str, int]]) -> None:
        worker, key = what
        if worker is self._worker:
            worker.flush(key)
