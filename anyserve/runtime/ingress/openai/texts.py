"""What the tokens of a choice read as: text without stop strings, log probabilities, tool calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from anyserve.core.messages import Frame
from anyserve.runtime.engines.base import TokenLogprob
from anyserve.runtime.ingress.codecs import Codec
from anyserve.runtime.ingress.openai.tools import ToolCall, ToolReader


class _AnswerData(msgspec.Struct):
    """The part of a frame's data that belongs to tokens."""

    logprobs: list[TokenLogprob] | None = None


_decoder = msgspec.json.Decoder(_AnswerData)


@dataclass(frozen=True, slots=True)
class TextRules:
    """How tokens become the text of an answer."""

    stops: Sequence[str] = ()
    stop_ids: frozenset[int] = frozenset()
    skip_special: bool = True
    logprobs: bool = False
    tools: bool = False


@dataclass(slots=True)
class Piece:
    """What a frame added to a choice."""

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.text or self.logprobs or self.calls)


class ChoiceText:
    """One choice of one answer, as it grows. `stopped`: its stop string or stop token came."""

    def __init__(self, codec: Codec, rules: TextRules) -> None:
        self.stopped = False
        self.whole = Piece()
        self._rules = rules
        self._decoder = codec.detokenizer(rules.stops, skip_special=rules.skip_special)
        self._tools = ToolReader() if rules.tools else None

    def take(self, frame: Frame) -> Piece:
        """Read a frame; what comes after a stop is passed over."""
        return self.push(frame.tokens, self._logprobs(frame))

    def push(self, tokens: list[int], logprobs: Sequence[TokenLogprob] = ()) -> Piece:
        """The same for bare tokens."""
        if self.stopped:
            return Piece()
        if self._rules.stop_ids:
            tokens = self._before_stop(tokens)
        piece = Piece(self._decoder.push(tokens), list(logprobs[: len(tokens)]))
        return self._note(piece)

    def finish(self) -> Piece:
        """What was held back until the end."""
        return self._note(Piece("" if self.stopped else self._decoder.finish()), last=True)

    def _note(self, piece: Piece, *, last: bool = False) -> Piece:
        self.stopped = self.stopped or self._decoder.stopped
        if self._tools is not None:
            text, piece.text = piece.text, ""
            self._tools.push(text, piece)
            if last:
                self._tools.finish(piece)
        self.whole.text += piece.text
        self.whole.logprobs += piece.logprobs
        self.whole.calls += piece.calls
        return piece

    def _before_stop(self, tokens: list[int]) -> list[int]:
        for place, token in enumerate(tokens):
            if token in self._rules.stop_ids:
                self.stopped = True
                return tokens[:place]
        return tokens

    def _logprobs(self, frame: Frame) -> Sequence[TokenLogprob]:
        if not self._rules.logprobs or not frame.has_data:
            return ()
        return _decoder.decode(frame.data).logprobs or ()
