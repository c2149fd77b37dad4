"""Reading a stream of events: items, the end, or the error that stands for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

_DONE: Final = "[DONE]"


class Kind(Enum):
    """What an event is."""

    ITEM = "item"
    ERROR = "error"
    END = "end"


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event. `data` is JSON, but at the end."""

    kind: Kind
    data: bytes = b""


class EventReader:
    """Takes the lines of `text/event-stream`, gives events. Comments and unknown fields are
    passed over."""

    def __init__(self) -> None:
        self._data: list[str] = []
        self._name = ""

    def take(self, line: str) -> Iterator[StreamEvent]:
        """One line without its end; an empty one ends an event."""
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                self._data.append(value)
            elif name == "event":
                self._name = value
            return
        if not self._data:
            self._name = ""
            return
        text, name = "\n".join(self._data), self._name
        self._data, self._name = [], ""
        if name == "error":
            yield StreamEvent(Kind.ERROR, text.encode())
        elif text == _DONE:
            yield StreamEvent(Kind.END)
        else:
            yield StreamEvent(Kind.ITEM, text.encode())
