"""What the processes of one simulation share: time, network, broker and each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyserve.core.messages import Registration, SchedulerState
from anyserve.core.scheduler.routing import explain_all
from anyserve.core.spec import ClusterSpec, SimSpec
from anyserve.sim.host import Host
from anyserve.sim.kernel import Kernel
from anyserve.sim.network import Network
from anyserve.sim.recorder import Record, Voice
from anyserve.sim.watch import Watch

if TYPE_CHECKING:
    from anyserve.sim.origin import OriginProcess
    from anyserve.sim.replica import ReplicaProcess
    from anyserve.sim.scheduler import SchedulerProcess


@dataclass(slots=True)
class World:
    """What the processes of one simulation share: time, network, broker and each other."""

    cluster: ClusterSpec
    sim: SimSpec
    kernel: Kernel
    network: Network
    record: Record
    explains: Callable[[str], bool] = explain_all
    """Whose decisions are explained in full: those whose events are recorded."""
    watch: Watch | None = None
    exact: bool = False
    """Every engine step is an entry of its own."""
    scheduler: SchedulerProcess = field(init=False)
    replicas: dict[str, ReplicaProcess] = field(default_factory=dict)
    origins: dict[str, OriginProcess] = field(default_factory=dict)
    state: SchedulerState | None = None
    """Retained at the broker."""
    registrations: dict[str, Registration] = field(default_factory=dict)
    """Likewise, by replica."""
    broker_up: bool = True
    host: Host | None = None
    """The machine that all engines share; None: each has cores enough."""
    supervisor: Voice = field(init=False)
