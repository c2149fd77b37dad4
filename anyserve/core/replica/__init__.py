"""A replica: owns its slots; serves, delegates or rejects what enters at it."""

from anyserve.core.replica.machine import Replica, ReplicaInput

__all__ = ["Replica", "ReplicaInput"]
