"""What the processes of one simulation share: time, network, broker and each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyserve.core.messages import Registration, SchedulerState
from anyserve.core.spec import ClusterSpec, SimSpec
from anyserve.sim.host import Host
from anyserve.sim.kernel import Kernel
from anyserve.sim.network import Network
from anyserve.sim.recorder import Recorder, Sample, Voice
from anyserve.sim.watch import Watch

if TYPE_CHECKING:
    from anyserve.sim.origin import OriginProcess
    from anyserve.sim.replica import ReplicaProcess
    from anyserve.sim.scheduler import SchedulerProcess


class World:
    """What the processes of one simulation share: time, network, broker and each other.

    Args:
        cluster: of the scenario.
        sim: network and start times.
        kernel: time.
        network: carries messages.
        recorder: takes every event.
        sample: of which requests all is told: those whose events are recorded.
        watch: looks at what the log does not show.
        exact: every engine step is an entry of its own.
    """

    scheduler: SchedulerProcess
    player: OriginProcess
    """The one origin that there is."""
    supervisor: Voice

    def __init__(
        self,
        cluster: ClusterSpec,
        sim: SimSpec,
        kernel: Kernel,
        network: Network,
        recorder: Recorder,
        *,
        sample: Sample,
        watch: Watch | None = None,
        exact: bool = False,
    ) -> None:
        self.cluster = cluster
        self.sim = sim
        self.kernel = kernel
        self.network = network
        self.recorder = recorder
        self.sample = sample
        self.watch = watch
        self.exact = exact
        self.replicas: dict[str, ReplicaProcess] = {}
        self.state: SchedulerState | None = None
        """Retained at the broker."""
        self.registrations: dict[str, Registration] = {}
        """Likewise, by replica."""
        self.broker_up = True
        self.host: Host | None = None
        """The machine that all engines share; None: each has cores enough."""
