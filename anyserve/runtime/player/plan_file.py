"""The traffic plan on its way from the command line to the player."""

from __future__ import annotations

from pathlib import Path

import msgspec

from anyserve.errors import UsageError
from anyserve.runtime.wire import encode
from anyserve.workload.traffic import TrafficPlan


def write_plan(path: Path, plan: TrafficPlan) -> None:
    """Write a plan that `read_plan` reads."""
    path.write_bytes(encode(plan))


def read_plan(path: Path) -> TrafficPlan:
    """Read a plan.

    Raises:
        UsageError: the file is not there, or no plan.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=TrafficPlan)
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise UsageError(message, code="plan_file") from None
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path} is not a traffic plan: {error}", code="plan_file") from None
