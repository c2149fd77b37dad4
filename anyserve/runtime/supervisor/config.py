"""What a supervisor is told at its start: `python -m anyserve.runtime.supervisor CONFIG`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from anyserve.core.spec import ClusterSpec, FaultSpec
from anyserve.errors import UsageError
from anyserve.runtime.bus.address import Credential


class StartLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How long each start may take, in seconds. Replicas include loading their models."""

    scheduler_s: float = 20.0
    recorder_s: float = 20.0
    zygote_s: float = 20.0
    ingress_s: float = 60.0
    replica_s: float = 300.0


class Graces(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From SIGTERM to SIGKILL, in seconds. `player_s` is how long running requests may drain."""

    player_s: float = 30.0
    recorder_s: float = 10.0
    replica_s: float = 5.0
    ingress_s: float = 3.0
    """Beyond the time that its settings give it to drain."""
    scheduler_s: float = 3.0
    orphaned_s: float = 10.0
    """For all of it, where the foreground died without a word."""


class SupervisorConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One cluster and what is to become of it.

    `plan_path` None: no traffic is played, the cluster stays until it is stopped. `keep`: it stays
    after the traffic, and outlives its foreground process. `credentials`, by bus role, are for an
    external broker; they win over what its URL or the environment says. `extra` goes to the nodes
    of each role (`scheduler`, `replica`, `player`, `recorder`,
    `ingress`) as `NodeConfig.extra`.
    """

    cluster: ClusterSpec
    run_dir: str
    plan_path: str | None = None
    faults: tuple[FaultSpec, ...] = ()
    keep: bool = False
    scenario: str = ""
    credentials: Mapping[str, Credential] | None = None
    check_memory: bool = True
    broker_port: int = 0
    """Of the embedded broker; 0 takes a free one."""
    limits: StartLimits = StartLimits()
    graces: Graces = Graces()
    extra: Mapping[str, dict[str, Any]] = {}


def load_supervisor_config(path: Path) -> SupervisorConfig:
    """Read the file.

    Raises:
        UsageError: it is not there, or not a configuration.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=SupervisorConfig)
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise UsageError(message, code="supervisor_config") from None
    except msgspec.MsgspecError as error:
        message = f"{path} is not a supervisor's configuration: {error}"
        raise UsageError(message, code="supervisor_config") from None
