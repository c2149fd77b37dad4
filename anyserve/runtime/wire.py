"""Between core's messages and the bus: topics, quality of service, encoding, decoding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from anyserve.core.effects import Inbox, Send
from anyserve.core.messages import Frame, Holding, KeepAlive, Settled

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


_NAME: Final = re.compile(r"[a-z0-9-]{1,32}")
_REQUEST_ID: Final = re.compile(r"[a-z0-9-]{1,32}/[0-9]{1,19}/[0-9]{1,19}")


def is_sound(message: Any) -> bool:
    """Whether the names in a message have the form that topics and state machines rely on.

    An answer to a request of an origin called `+` would be published to a wildcard, for which a
    broker hangs up.
    """
    names = (getattr(message, field, None) for field in ("replica", "source", "origin"))
    return all(name is None or _NAME.fullmatch(name) for name in names) and all(
        _REQUEST_ID.fullmatch(request_id) for request_id in _request_ids(message)
    )


def _request_ids(message: Any) -> Iterator[str]:
    if isinstance(message, Settled):
        yield from message.ids
    elif isinstance(message, Holding):
        yield from (held.id for held in message.held)
    elif isinstance(message, KeepAlive):
        yield from (request_id for request_id, _ in message.held)
    else:
        request = getattr(message, "request", None)
        if request is not None:
            yield request.id
        request_id = getattr(message, "id", None)
        if request_id is not None:
            yield request_id
