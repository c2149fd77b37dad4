"""The faults of a scenario, carried out in virtual time on simulated processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from anyserve.core.events import FaultInjected
from anyserve.core.messages import Gone, Operate
from anyserve.core.spec import GIVE_UP_NS, FaultSpec
from anyserve.sim.replica import ReplicaProcess
from anyserve.sim.world import World

NS_PER_S: Final = 1_000_000_000
RECONNECT_NS: Final = 50_000_000
"""From the broker's return to the first connection."""
RESTART_NS: Final = 500_000_000
"""Before a scheduler that died is started again."""


class Faults:
    """Plans each fault, and its end, on the agenda."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._begins: dict[str, Callable[[FaultSpec], None]] = {
            "kill": self._kill,
            "hang": self._hang,
            "slow": self._slow,
            "drain": self._drain,
            "partition": self._partition,
            "drop": self._drop,
            "duplicate": self._duplicate,
            "delay": self._delay,
            "restart-broker": self._restart_broker,
            "restart-scheduler": self._restart_scheduler,
        }
        self._ends: dict[str, tuple[str, Callable[[FaultSpec], None]]] = {
            "hang": ("resume", self._resume),
            "slow": ("slow ends", self._unslow),
            "drain": ("undrain", self._undrain),
            "partition": ("partition ends", self._heal),
            "drop": ("drop ends", self._undrop),
            "duplicate": ("duplicate ends", self._unduplicate),
            "delay": ("delay ends", self._undelay),
        }

    def plan(self, faults: tuple[FaultSpec, ...], start_ns: int) -> None:
        """Let them happen, counted from the start of traffic."""
        kernel = self._world.kernel
        for fault in faults:
            kernel.at(start_ns + fault.at_ns, self._begin, fault)
            if fault.duration_ns is not None and fault.action in self._ends:
                kernel.at(start_ns + fault.at_ns + fault.duration_ns, self._end, fault)

    def _begin(self, fault: FaultSpec) -> None:
        self._say(fault.action, fault)
        self._begins[fault.action](fault)

    def _end(self, fault: FaultSpec) -> None:
        action, carry_out = self._ends[fault.action]
        self._say(action, fault)
        carry_out(fault)

    def _say(self, action: str, fault: FaultSpec) -> None:
        event = FaultInjected(action=action, target=fault.target, line=fault.line)
        self._world.supervisor.say(event, self._world.kernel.now)

    def _target(self, fault: FaultSpec) -> tuple[ReplicaProcess, bool]:
        """The replica, and whether its worker is meant."""
        kind, _, name = fault.target.partition(" ")
        return self._world.replicas[name], kind == "worker"

    # --- processes -------------------------------------------------------------------------------

    def _kill(self, fault: FaultSpec) -> None:
        replica, worker = self._target(fault)
        if worker:
            replica.kill_worker()
        else:
            replica.kill()

    def _hang(self, fault: FaultSpec) -> None:
        replica, worker = self._target(fault)
        if worker:
            replica.hang_worker()
            return
        replica.freeze()
        life = (replica.incarnation, replica.connection)
        self._later(GIVE_UP_NS, self._close_frozen, (replica, life))

    def _close_frozen(self, what: tuple[ReplicaProcess, tuple[int, int]]) -> None:
        """The broker closes a silent connection; the process finds out when it wakes."""
        replica, life = what
        if replica.frozen and (replica.incarnation, replica.connection) == life:
            self._say_gone(replica)
            replica.lose_connection()

    def _resume(self, fault: FaultSpec) -> None:
        replica, worker = self._target(fault)
        if worker:
            replica.resume_worker()
        else:
            replica.thaw()

    def _slow(self, fault: FaultSpec) -> None:
        self._operate(fault, "slow", fault.factor or 1.0)

    def _unslow(self, fault: FaultSpec) -> None:
        self._operate(fault, "slow", 1.0)

    def _drain(self, fault: FaultSpec) -> None:
        self._operate(fault, "drain")

    def _undrain(self, fault: FaultSpec) -> None:
        self._operate(fault, "resume")

    def _operate(self, fault: FaultSpec, action: str, factor: float = 1.0) -> None:
        """By way of the scheduler, which tells the replica, as live."""
        replica, _ = self._target(fault)
        wish = Operate(replica=replica.name, action=action, factor=factor)
        self._world.network.send("supervisor", self._world.scheduler, wish)

    # --- the network -----------------------------------------------------------------------------

    def _partition(self, fault: FaultSpec) -> None:
        replica, _ = self._target(fault)
        replica.flush()
        self._world.network.trouble(replica.name).held = []
        self._later(GIVE_UP_NS, self._time_out, (replica, replica.incarnation))

    def _time_out(self, what: tuple[ReplicaProcess, int]) -> None:
        """Both ends give a silent connection up: what was on its way is lost."""
        replica, incarnation = what
        trouble = self._world.network.troubles.get(replica.name)
        if trouble is None or trouble.held is None or replica.incarnation != incarnation:
            return
        self._say_gone(replica)
        trouble.held.clear()
        trouble.timed_out = True
        replica.disconnect()

    def _heal(self, fault: FaultSpec) -> None:
        replica, _ = self._target(fault)
        network = self._world.network
        trouble = network.troubles.get(replica.name)
        if trouble is None:
            return
        lost, trouble.timed_out = trouble.timed_out, False
        network.release(replica.name, lost=lost)
        if lost:
            replica.connect()

    def _drop(self, fault: FaultSpec) -> None:
        self._trouble(fault, drop=float(fault.options["share"]))

    def _undrop(self, fault: FaultSpec) -> None:
        self._trouble(fault, drop=0.0)

    def _duplicate(self, fault: FaultSpec) -> None:
        self._trouble(fault, duplicate=float(fault.options["share"]))

    def _unduplicate(self, fault: FaultSpec) -> None:
        self._trouble(fault, duplicate=0.0)

    def _delay(self, fault: FaultSpec) -> None:
        options = fault.options
        self._trouble(fault, delay_ns=options["by_ns"], jitter_ns=options.get("jitter_ns", 0))

    def _undelay(self, fault: FaultSpec) -> None:
        self._trouble(fault, delay_ns=0, jitter_ns=0)

    def _trouble(self, fault: FaultSpec, **changes: Any) -> None:
        replica, _ = self._target(fault)
        replica.flush()
        trouble = self._world.network.trouble(replica.name)
        for name, value in changes.items():
            setattr(trouble, name, value)
        self._world.network.mend(replica.name)

    def _say_gone(self, replica: ReplicaProcess) -> None:
        """The broker publishes the replica's last will."""
        world = self._world
        gone = Gone(
            source=replica.name, incarnation=replica.incarnation, connection=replica.connection
        )
        if world.broker_up:
            world.network.send("broker", world.scheduler, gone)

    # --- broker and scheduler --------------------------------------------------------------------

    def _restart_broker(self, fault: FaultSpec) -> None:
        world = self._world
        for replica in world.replicas.values():
            replica.flush()
        world.network.forget()
        world.broker_up = False
        for process in (world.scheduler, *world.replicas.values(), world.player):
            process.disconnect()
        self._later(fault.options.get("down_ns", 0) + RECONNECT_NS, self._broker_is_back, None)

    def _broker_is_back(self, _: None) -> None:
        world = self._world
        world.broker_up = True
        for process in (world.scheduler, world.player, *world.replicas.values()):
            trouble = world.network.troubles.get(process.name)
            if trouble is None or trouble.held is None:
                process.connect()

    def _restart_scheduler(self, fault: FaultSpec) -> None:
        world = self._world
        world.scheduler.die()
        down_ns = max(fault.options.get("down_ns", 0), RESTART_NS)
        self._later(down_ns + world.sim.boot_ns, self._scheduler_is_back, None)

    def _scheduler_is_back(self, _: None) -> None:
        if not self._world.scheduler.alive:
            self._world.scheduler.start()

    def _later(self, delay_ns: int, action: Callable[[Any], None], argument: Any) -> None:
        kernel = self._world.kernel
        kernel.at(kernel.now + delay_ns, action, argument)
