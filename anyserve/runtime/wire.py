"""Between core's messages and the bus: topics, quality of service, encoding, decoding."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any, Final

import msgspec

from anyserve.core.effects import Inbox, Send
from anyserve.core.messages import Ended, Frame, Holding, KeepAlive, Settled

encode: Final = msgspec.json.Encoder().encode
"""Any message or event as JSON."""

_REMEMBERED: Final = 4096
"""Names, ids and topics that were looked at lately: all frames of a request say the same ones."""
_BEST_EFFORT: Final = frozenset({Frame, KeepAlive})
RETAINED: Final = frozenset({Inbox.SCHEDULER_STATE, Inbox.REPLICA_REGISTRATION})


class Topics:
    """The topics of one cluster: `anyserve/<cluster>/...`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.of = lru_cache(_REMEMBERED)(self._of)
        """Where a message for an inbox (and whose) is published."""

    def _of(self, inbox: Inbox, to: str) -> str:
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
    return 0 if type(send.message) in _BEST_EFFORT else 1


def is_lazy(send: Send) -> bool:
    """Whether a message may wait a moment for company: nobody waits for a settlement."""
    return send.lazy or type(send.message) is Settled


_NAME: Final = re.compile(r"[a-z0-9-]{1,32}")
_REQUEST_ID: Final = re.compile(r"[a-z0-9-]{1,32}/[0-9]{1,19}/[0-9]{1,19}")


@lru_cache(_REMEMBERED)
def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


@lru_cache(_REMEMBERED)
def _is_request_id(text: str) -> bool:
    return _REQUEST_ID.fullmatch(text) is not None


def is_sound(message: Any) -> bool:
    """Whether the names in a message have the form that topics and state machines rely on.

    An answer to a request of an origin called `+` would be published to a wildcard, for which a
    broker hangs up.
    """
    kind: type[msgspec.Struct] = type(message)
    for field in _name_fields(kind):
        if not _is_name(getattr(message, field)):
            return False
    if isinstance(message, Ended) and message.credit is not None and not is_sound(message.credit):
        return False
    return all(map(_is_request_id, _request_ids(message)))


@cache
def _name_fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(set(kind.__struct_fields__) & {"replica", "source", "origin"})


@cache
def _id_fields(kind: type[msgspec.Struct]) -> tuple[bool, bool]:
    """Whether messages of this kind have an `id` of a request, and a whole `request`."""
    return "id" in kind.__struct_fields__, "request" in kind.__struct_fields__


def _request_ids(message: Any) -> Iterable[str]:
    if isinstance(message, Settled):
        return message.ids
    if isinstance(message, Holding):
        return [held.id for held in message.held]
    if isinstance(message, KeepAlive):
        return [request_id for request_id, _ in message.held]
    kind: type[msgspec.Struct] = type(message)
    has_id, has_request = _id_fields(kind)
    ids = (message.id,) if has_id else ()
    return (*ids, message.request.id) if has_request else ids
