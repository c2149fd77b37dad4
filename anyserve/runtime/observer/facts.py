"""What stands on a screen beside the events: where the broker is and how far, who records.

| key | value |
|---|---|
| `cluster`, `scenario`, `run_dir` | names and paths |
| `broker` | its URL |
| `connected` | `yes`, or `no` while the broker is away |
| `ping_ms` | the last measured round trip to the broker, in ms; absent where none was answered |
| `recorder` | `recording`, or what its process is instead |
| `state` | the supervisor's word for the cluster: starting, running, idle, stopping, ended |
| `log.<process>`, `log.worker <replica>` | where a process's log lies |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from anyserve.errors import AnyServeError
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.clusters import ClusterRecord
from anyserve.runtime.supervisor.control import ClusterStatus, ControlClient
from anyserve.runtime.supervisor.nodes import replica_name

_ASK_S: Final = 2.0
_PING_EVERY: Final = 4
"""The round trip is measured at each so many-th refresh."""


class Facts:
    """`now` is replaced at each refresh, never changed: whoever holds one holds a moment."""

    every_s: float = 0.5

    def __init__(self, record: ClusterRecord, bus: MqttBus) -> None:
        self._record = record
        self._bus = bus
        self._refreshed = 0
        self._asked: dict[str, str] = {}
        self.now: Mapping[str, str] = self._fixed()

    def _fixed(self) -> dict[str, str]:
        record = self._record
        return {
            "cluster": record.name,
            "scenario": record.scenario,
            "run_dir": record.run_dir,
            "broker": record.broker.url,
        }

    async def refresh(self) -> None:
        """Look again."""
        if self._refreshed % _PING_EVERY == 0:
            await self._ping()
            await self._ask()
        self._refreshed += 1
        self._publish()

    def ended(self) -> None:
        """The cluster is gone."""
        self._asked = {"state": "ended", "recorder": "ended"} | {
            key: path for key, path in self._asked.items() if key.startswith("log.")
        }
        self._publish()

    def _publish(self) -> None:
        connected = {"connected": "yes" if self._bus.connected else "no"}
        self.now = self._fixed() | connected | self._asked

    async def _ping(self) -> None:
        took_s = await self._bus.round_trip()
        if took_s is None:
            self._asked.pop("ping_ms", None)
        else:
            self._asked["ping_ms"] = f"{took_s * 1000:.1f}"

    async def _ask(self) -> None:
        try:
            async with ControlClient(Path(self._record.control), timeout_s=_ASK_S) as client:
                status = await client.status()
        except AnyServeError:  # it is starting, or ends; the events go on
            return
        self._asked |= {"state": status.state, "recorder": _recorder(status), **_logs(status)}


def _recorder(status: ClusterStatus) -> str:
    state = next((one.state for one in status.processes if one.name == "recorder"), "not there")
    return "recording" if state == "running" else state


def _logs(status: ClusterStatus) -> dict[str, str]:
    """Where each process writes: the names that `Home.log` gives."""
    logs = Path(status.run_dir) / "logs"
    found = {f"log.{p.name}": logs / f"{p.name.replace(' ', '-')}.log" for p in status.processes}
    for replica in status.replicas:
        found[f"log.worker {replica.id}"] = logs / f"worker-{replica.id}.log"
        found.setdefault(f"log.{replica_name(replica.id)}", logs / f"replica-{replica.id}.log")
    return {key: str(path) for key, path in found.items()}
