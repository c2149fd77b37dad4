"""What all simulated processes have in common: a state machine, a connection, a timer, a voice."""

from __future__ import annotations

from typing import Any, Final

from anyserve.core.counts import Count
from anyserve.core.effects import Command, Effect, Inbox, Send, SetTimer
from anyserve.core.events import AnyEvent
from anyserve.core.inputs import BusDown, BusUp, Wake
from anyserve.core.machine import Machine
from anyserve.core.messages import Registration, SchedulerState
from anyserve.sim.network import Receiver
from anyserve.sim.recorder import Voice
from anyserve.sim.timer import Timer
from anyserve.sim.world import World

_WAKE: Final = Wake()
# A member of an enumeration is reached by a call into Python; this is the hot path.
_SCHEDULER: Final = Inbox.SCHEDULER
_ORIGIN: Final = Inbox.ORIGIN
_REPLICA: Final = Inbox.REPLICA
_REPLICA_ENTRY: Final = Inbox.REPLICA_ENTRY


class Process(Receiver):
    """A process of the cluster, through all its lives."""

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, self.hear)
        # What every message asks for comes first: compiled, fields lie in this order.
        self._machine: Machine | None = None
        self._frozen: list[Any] | None = None
        self._world = world
        self._kernel = world.kernel
        self._network = world.network
        self._voice = Voice(name, 0, world.recorder)
        self._timer = Timer(world.kernel, self)
        self.incarnation = 0
        self.connection = 0

    # --- driving the machine ---------------------------------------------------------------------

    def do(self, what: Any) -> None:
        """See `Receiver`."""
        self.hear(what)

    def hear(self, message: Any) -> None:
        """A message or a local input. Lost where no process is there to hear it."""
        machine = self._machine
        if machine is None:
            return
        if self._frozen is not None:
            self._frozen.append(message)
            return
        now = self._kernel.now
        self._carry_out(machine.handle(now, message), now)

    def say(self, event: AnyEvent) -> None:
        """An event of this process, now."""
        self._voice.say(event, self._kernel.now)

    def _carry_out(self, effects: list[Effect], now: int) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect)
            elif isinstance(effect, SetTimer):
                self._timer.ask(effect.at_ns)
            elif isinstance(effect, Count):
                self._voice.count(effect, now)
            elif isinstance(effect, Command):
                self._perform(effect)
            else:
                self._voice.say(effect, now)

    def _perform(self, effect: Command) -> None:
        """Carry out an effect that only this role has."""

    def _send(self, send: Send) -> None:
        world, inbox = self._world, send.inbox
        if not world.broker_up:
            return
        to: Process | None
        if inbox is _SCHEDULER:
            to = world.scheduler
        elif inbox is _ORIGIN:
            to = world.player
        elif inbox is _REPLICA or inbox is _REPLICA_ENTRY:
            if world.watch is not None:
                world.watch.sent(self.name, send.to, send.message)
            to = world.replicas.get(send.to)
        else:
            self._retain(send)
            return
        if to is not None:
            self._network.send(self.name, to, send.message)

    def _retain(self, send: Send) -> None:
        """A message that the broker keeps for those who come later."""
        world, message = self._world, send.message
        if isinstance(message, SchedulerState):
            world.state = message
            for process in (*world.replicas.values(), world.player):
                self._network.send(self.name, process, message)
        elif isinstance(message, Registration):
            world.registrations[message.replica] = message
            self._network.send(self.name, world.scheduler, message)

    def wake(self) -> None:
        """It is time for what the machine waits for."""
        self.hear(_WAKE)

    # --- connection and life ---------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._machine is not None

    def _begin(self, machine: Machine) -> None:
        """A new life."""
        self.incarnation += 1
        self.connection = 0
        self._frozen = None
        self._timer.clear()
        self._machine = machine
        self._voice = Voice(self.name, self.incarnation, self._world.recorder)

    def connect(self) -> None:
        """The connection stands: say so, and get what the broker retains."""
        if not self.alive:
            return
        self.connection += 1
        self.hear(BusUp(connection=self.connection))
        self._hear_retained()

    def disconnect(self) -> None:
        """The connection broke."""
        if self.alive:
            self.hear(BusDown())

    def _hear_retained(self) -> None:
        if self._world.state is not None:
            self._network.send("broker", self, self._world.state)

    def die(self) -> None:
        """SIGKILL: nothing more is done or said."""
        self._machine = None
        self._frozen = None
        self._timer.clear()

    def freeze(self) -> None:
        """SIGSTOP: what arrives waits."""
        if self.alive and self._frozen is None:
            self._frozen = []

    def thaw(self) -> None:
        """SIGCONT: what waited is handled now, in order."""
        waiting, self._frozen = self._frozen or [], None
        for message in waiting:
            self.hear(message)
