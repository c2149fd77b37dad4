"""Between core's messages and the bus: topics, quality of service, encoding, decoding."""

from __future__ import annotations

from typing import Final

import msgspec

from anyserve.core.effects import Inbox, Send
from anyserve.core.messages import Frame, KeepAlive, Settled

encode: Final = msgspec.json.Encoder().encode
"""Any message or event as JSON."""

RETAINED: Final = frozenset({Inbox.SCHEDULER_STATE, Inbox.REPLICA_REGISTRATION})


class Topics:
    """The topics of one cluster: `anyserve/<cluster>/...`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def of(self, inbox: Inbox, to: str) -> str:
        """Where a message for this inbox is published."""
        return f"{self._prefix}/{inbox.value.format(to)}"

    def of_send(self, send: Send) -> str:
        """Where this effect is published."""
        return self.of(send.inbox, send.to)

    def gone(self, kind: str, name: str) -> str:
        """The topic of a last will; `kind` is `replica` or `origin`."""
        return f"{self._prefix}/{kind}/{name}/gone"

    def event(self, source: str) -> str:
        """Where a process says what happened."""
        return f"{self._prefix}/event/{source}"

    def any(self, pattern: str) -> str:
        """A filter below the cluster, such as `replica/+/reg`."""
        return f"{self._prefix}/{pattern}"


def qos_of(send: Send) -> int:
    """0 for the token stream, which repairs itself; 1 for all else."""
    return 0 if isinstance(send.message, (Frame, KeepAlive)) else 1


def is_lazy(send: Send) -> bool:
    """Whether a message may wait a moment for company: nobody waits for a settlement."""
    return isinstance(send.message, Settled)
