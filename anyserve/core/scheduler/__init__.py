"""The scheduler: routes by capability and load, owns waiting, binding and the counters."""

from anyserve.core.scheduler.machine import Scheduler, SchedulerInput

__all__ = ["Scheduler", "SchedulerInput"]
