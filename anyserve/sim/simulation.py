"""One simulation: the cluster of a scenario and its traffic, from the first process to the end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

import msgspec

from anyserve.core.spec import SimSpec
from anyserve.errors import AnyServeError, UsageError
from anyserve.sim.engines import EngineSetup, engine_setup
from anyserve.sim.faults import Faults
from anyserve.sim.host import Host
from anyserve.sim.kernel import Kernel
from anyserve.sim.network import Network
from anyserve.sim.origin import OriginProcess
from anyserve.sim.recorder import Recorder, Sample, Voice
from anyserve.sim.replica import ReplicaProcess
from anyserve.sim.scheduler import SchedulerProcess
from anyserve.sim.watch import Watch
from anyserve.sim.world import World
from anyserve.workload.compile import Compiled

SECOND: Final = 1_000_000_000
LEAD_NS: Final = SECOND // 5
"""Between the last replica's readiness and the start of traffic, as live."""
READY_NS: Final = 3600 * SECOND
"""Replicas that are not ready by then are not waited for."""
AFTER_NS: Final = SECOND
"""How long the cluster goes on after the last outcome: attempts end, settlements arrive."""
STORM: Final = 20_000_000
"""So many entries at one instant, and time no longer passes."""


class StalledError(AnyServeError):
    """The simulation cannot come to an end; the message says why."""

    exit_code = 70


class Phase(Enum):
    """Where a simulation is."""

    STARTING = "starting"
    PLAYING = "playing"
    CLOSING = "closing"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it has come. Times are virtual, counted from the start of traffic."""

    phase: Phase
    now_s: float
    planned_s: float
    planned: int
    offered: int
    settled: int


class Simulation:
    """Build it, then call `advance` until `over`.

    Args:
        compiled: the scenario.
        recorder: takes every event.
        run: the run's id, for its first event.
        exact: let every engine step be an entry of its own; the result is the same, later.
        sim: network and start times.
        sample: the requests of which all is told; of the others what is counted. None: of all.
        watch: looks at what the log does not show.
    """

    def __init__(
        self,
        compiled: Compiled,
        recorder: Recorder,
        *,
        run: str = "",
        exact: bool = False,
        sample: Sample | None = None,
        sim: SimSpec | None = None,
        watch: Watch | None = None,
        scenario_dir: str | None = None,
    ) -> None:
        sim = sim or compiled.sim
        self.compiled = compiled
        cluster = compiled.cluster
        self._kernel = kernel = Kernel(sim.network.latency_ns, len(cluster.replicas))
        network = Network(kernel, sim.network, compiled.seed)
        self._world = world = World(
            cluster,
            sim,
            kernel,
            network,
            recorder,
            sample=sample or Sample(1.0),
            watch=watch,
            exact=exact,
        )
        if sim.cores:
            world.host = Host(sim.cores)
        world.supervisor = Voice("supervisor", 1, recorder)
        world.scheduler = SchedulerProcess(world, scenario_dir)
        setups: dict[bytes, EngineSetup] = {}
        for place, spec in enumerate(cluster.replicas):
            key = msgspec.json.encode(spec.engine)
            setup = setups.get(key)
            if setup is None:
                setup = setups[key] = engine_setup(
                    spec.engine, scenario_dir, jitters=sim.step_jitter
                )
            if spec.app is not None:
                raise UsageError(
                    f"{spec.id} runs {spec.app.name}, and how long its handlers take is not known",
                    code="sim_app",
                    hint="simulate a scenario whose replicas have engines only",
                )
            if watch is not None:
                watch.know(spec.id)
            world.replicas[spec.id] = ReplicaProcess(world, spec, place, setup)
        self._setups = list(setups.values())
        self._player = OriginProcess(world, compiled.plan, run=run, ended=self._on_ended)
        world.player = self._player
        self._faults = Faults(world)
        self._phase = Phase.STARTING
        self._closing_ns = 0
        self._still = 0
        self._start()

    @property
    def over(self) -> bool:
        """Whether the run has come to its end."""
        return self._phase is Phase.OVER

    @property
    def entries(self) -> int:
        """Entries of the agenda carried out so far."""
        return self._kernel.handled

    def engine_notes(self) -> list[str]:
        """What should be known of the engines' times, once it is over; each once."""
        return list(dict.fromkeys(note for setup in self._setups for note in setup.notes()))

    def progress(self) -> Progress:
        """How far it has come."""
        plan, started = self.compiled.plan, self._player.started_ns
        return Progress(
            phase=self._phase,
            now_s=0.0 if started is None else max(0, self._kernel.now - started) / SECOND,
            planned_s=plan.duration_ns / SECOND,
            planned=self._player.expected,
            offered=self._player.offered,
            settled=self._player.settled,
        )

    def advance(self, most: int = 20_000, until_s: float | None = None) -> None:
        """Carry out at most so many entries; with `until_s`, none beyond that time of the traffic.

        Raises:
            StalledError: time stands still, or the run cannot end.
        """
        before = self._kernel.now
        self._kernel.limit_ns = self._limit_ns(until_s)
        count = self._kernel.run(most)
        self._still = self._still + count if self._kernel.now == before else 0
        if self._still > STORM:
            raise StalledError(
                f"{self._still} things happened at {before / SECOND:.3f} s and time stands still",
                code="sim_storm",
                hint="this is a bug of ours: please report the scenario and its seed",
            )
        if self._phase is Phase.CLOSING and count < most:
            self._finish()
        elif count == 0 and until_s is None:
            self._on_nothing_left()

    def run(self) -> None:
        """All of it."""
        while not self.over:
            self.advance()

    def stop(self, reason: str) -> None:
        """End the run early: what is open is cancelled."""
        if self._phase is Phase.STARTING:
            self._finish()
        elif self._phase is Phase.PLAYING:
            self._player.stop(reason)

    # --- the course of a run ---------------------------------------------------------------------

    def _start(self) -> None:
        world = self._world
        world.scheduler.start()
        for replica in world.replicas.values():
            replica.start()
        self._player.start()
        self._kernel.at(0, self._wait_for_replicas, None)

    def _wait_for_replicas(self, _: None) -> None:
        """Traffic starts when all are ready, as `anyserve up` waits for them."""
        kernel, waiting = self._kernel, self._waiting()
        if waiting and kernel.now < READY_NS:
            kernel.at(kernel.now + SECOND // 20, self._wait_for_replicas, None)
            return
        start_ns = kernel.now + LEAD_NS
        self._phase = Phase.PLAYING
        self._player.play(start_ns)
        self._faults.plan(self.compiled.faults, start_ns)

    def _waiting(self) -> bool:
        world = self._world
        states = world.registrations
        return self._player.machine.epoch == 0 or any(
            not replica.ready or states[name].state.value != "ready"
            for name, replica in world.replicas.items()
        )

    def _limit_ns(self, until_s: float | None) -> int:
        if self._phase is Phase.CLOSING:
            return self._closing_ns
        end_ns = self._end_ns()
        if until_s is None or self._player.started_ns is None:
            return end_ns
        return min(end_ns, self._player.started_ns + int(until_s * SECOND))

    def _end_ns(self) -> int:
        """By then every request has its outcome: the last one is offered, and lives no longer."""
        started = self._player.started_ns
        if started is None:
            return 2 * READY_NS
        life_ns = self._world.cluster.request_lifetime_ms * 1_000_000
        return started + self.compiled.plan.duration_ns + life_ns + 60 * SECOND

    def _on_ended(self) -> None:
        self._phase = Phase.CLOSING
        self._closing_ns = self._kernel.limit_ns = self._kernel.now + AFTER_NS

    def _finish(self) -> None:
        self._phase = Phase.OVER
        self._kernel.close()

    def _on_nothing_left(self) -> None:
        """Nothing is due before the end of all lives, and requests are open: who holds them?"""
        if self._phase is not Phase.PLAYING:
            raise StalledError("the cluster never became ready", code="sim_not_ready")
        stuck = self._player.machine.pending_ids()
        shown = ", ".join(stuck[:3])
        self._player.stop(f"stalled: {len(stuck)} requests never ended ({shown})")
