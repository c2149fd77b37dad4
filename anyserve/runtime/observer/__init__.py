"""What watches and steers a running cluster from outside: its events, and a person's wishes."""

from anyserve.runtime.observer.control import ClusterControl
from anyserve.runtime.observer.source import LiveSource, observer_bus

__all__ = ["ClusterControl", "LiveSource", "observer_bus"]
