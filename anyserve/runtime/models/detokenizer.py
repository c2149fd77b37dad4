"""Token ids in, text out, as they come: never half a character, never a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What a decoder makes of bytes that are not a whole character (yet)."""


class Detokenizer:
    """Decodes one stream.

    A token may hold a part of a character, and what it reads as may depend on the tokens before
    it. So text is held back while it ends in an incomplete character, or in what may become one of
    the `stop` strings; what follows a stop string is never given out.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = tuple(text for text in stop if text)
        self._ids: list[int] = []
        self._context = 0
        """Tokens from here on are decoded again, so that spaces come out right."""
        self._given = 0
        """Tokens before this have been turned into text."""
        self._held = ""
        self.stopped = False
        """Whether a stop string was met."""

    def push(self, ids: Sequence[int]) -> str:
        """Take tokens in and return the text that is certain now."""
        self._ids += ids
        text = self._fresh()
        if text.endswith(_INCOMPLETE):
            return ""
        self._context, self._given = self._given, len(self._ids)
        return self._cut(text)

    def finish(self) -> str:
        """Return what was held back; call once, at the end of the stream."""
        rest = self._cut(self._fresh(), last=True)
        self._given = len(self._ids)
        return rest

    def _fresh(self) -> str:
        known = self._decode(self._ids[self._context : self._given])
        return self._decode(self._ids[self._context :])[len(known) :]

    def _cut(self, text: str, *, last: bool = False) -> str:
        if self.stopped:
            return ""
        self._held += text
        places = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            ready, self._held = self._held[: min(places)], ""
            return ready
        keep = 0 if last else self._maybe_stop()
        ready = self._held[: len(self._held) - keep]
        self._held = self._held[len(ready) :]
        return ready

    def _maybe_stop(self) -> int:
        """Length of the longest end of the text with which a stop string begins."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stop):
                return size
        return 0
