"""The player's process: replays a traffic plan against the cluster, as an origin."""

from anyserve.runtime.player.plan_file import read_plan, write_plan

__all__ = ["read_plan", "write_plan"]
