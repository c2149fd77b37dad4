"""The scheduler's process: `core.Scheduler` with its journal, policy and cost."""

from __future__ import annotations

import random
from typing import Any

from anyserve.core.effects import Command, JournalRecord, Persist
from anyserve.core.scheduler import Scheduler
from anyserve.sim.process import Process
from anyserve.sim.world import World
from anyserve.workload.policies import load_policy


class SchedulerProcess(Process):
    """All lives of the scheduler. `scenario_dir`: where a user's policy is looked for first."""

    def __init__(self, world: World, scenario_dir: str | None) -> None:
        super().__init__("scheduler", world)
        self._scenario_dir = scenario_dir
        self._journal: list[JournalRecord] = []
        self._cost_ns = world.sim.scheduler_ns
        self._free_ns = 0
        self.machine: Scheduler | None = None

    def start(self) -> None:
        """A new life: the journal is replayed, the broker's retained messages arrive."""
        world = self._world
        rules = world.cluster.scheduler
        rng = random.Random(rules.seed)  # noqa: S311 - as the live scheduler does
        policy = load_policy(rules, rng, self._scenario_dir)
        machine = Scheduler(
            world.cluster,
            policy,
            rng,
            incarnation=self.incarnation + 1,
            explains=world.sample.took,
        )
        machine.replay(self._journal)
        self._begin(machine)
        self.machine = machine
        self._free_ns = self._kernel.now
        seen_epoch = world.state.epoch if world.state is not None else 0
        self._carry_out(machine.start(self._kernel.now, seen_epoch=seen_epoch), self._kernel.now)
        self._hear_retained()

    def die(self) -> None:
        """See `Process`."""
        super().die()
        self.machine = None

    def _hear_retained(self) -> None:
        for registration in self._world.registrations.values():
            self._network.send("broker", self, registration)

    def _perform(self, effect: Command) -> None:
        if isinstance(effect, Persist):
            self._journal.append(effect.record)

    def hear(self, message: Any) -> None:
        """See `Process`. One message after the other: each takes the processor for a while."""
        if not self._cost_ns:
            self._handle(message)
            return
        self._free_ns = max(self._free_ns, self._kernel.now) + self._cost_ns
        self._kernel.at(self._free_ns, self._turn, (self.incarnation, message))

    def _turn(self, waiting: tuple[int, Any]) -> None:
        incarnation, message = waiting
        if incarnation == self.incarnation:
            self._handle(message)

    def _handle(self, message: Any) -> None:
        super().hear(message)
        watch = self._world.watch
        if watch is not None and self.machine is not None:
            watch.handled(self.machine, self._kernel.now)
