"""Calls of tools in a model's text, in the one format that we know.

`hermes`: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, an object or a list of them
(Hermes, Qwen, SmolLM2 and others are trained on it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from anyserve.runtime.ingress.openai.texts import Piece

_BEGIN: Final = "<tool_call>"
_END: Final = "</tool_call>"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call; `arguments` is JSON text, as OpenAI has it."""

    index: int
    name: str
    arguments: str


class ToolReader:
    """Parts a stream of text into content and calls. A call is given out once it is whole."""

    def __init__(self) -> None:
        self._held = ""
        self._inside = False
        self._count = 0

    def push(self, text: str, into: Piece) -> None:
        """Take text in; add what is certain to `into`."""
        self._held += text
        while self._step(into):
            pass

    def finish(self, into: Piece) -> None:
        """The stream is over: what is held is a call without its end, or plain text."""
        rest, self._held = self._held, ""
        if self._inside:
            self._close(rest, "", into)
        else:
            into.text += rest

    def _step(self, into: Piece) -> bool:
        """Whether something was decided, so that there may be more to decide."""
        marker = _END if self._inside else _BEGIN
        before, found, after = self._held.partition(marker)
        if not found:
            if not self._inside:
                keep = _overlap(self._held, marker)
                into.text += self._held[: len(self._held) - keep]
                self._held = self._held[len(self._held) - keep :]
            return False
        self._held = after
        if self._inside:
            self._close(before, _END, into)
        else:
            into.text += before
            self._inside = True
        return True

    def _close(self, inner: str, end: str, into: Piece) -> None:
        self._inside = False
        calls = _parse(inner)
        if calls is None:  # no call after all: nothing that the model said is lost
            into.text += f"{_BEGIN}{inner}{end}"
            return
        for name, arguments in calls:
            into.calls.append(ToolCall(self._count, name, arguments))
            self._count += 1


def _parse(text: str) -> list[tuple[str, str]] | None:
    try:
        found: Any = msgspec.json.decode(text.strip())
    except (msgspec.DecodeError, RecursionError):
        return None
    calls = found if isinstance(found, list) else [found]
    parsed = []
    for call in calls:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return None
        arguments = call.get("arguments", {})
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
        parsed.append((call["name"], text))
    return parsed or None


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of the text with which the marker begins."""
    for size in range(min(len(text), len(marker) - 1), 0, -1):
        if marker.startswith(text[-size:]):
            return size
    return 0
