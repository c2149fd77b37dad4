"""Times of a run as people type them."""

from __future__ import annotations

import re

from anyserve.errors import UsageError

_CLOCK = re.compile(r"(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d{1,2}(?:\.\d+)?)\Z")
_SECONDS = re.compile(r"(?P<s>-?\d+(?:\.\d+)?)s?\Z")
_SHARE = re.compile(r"(?P<p>\d+(?:\.\d+)?)%\Z")


def parse_time(text: str, end_s: float) -> float:
    """Seconds from the start of the traffic: `47`, `1:05`, `0:12.5`, `50%`, `end`.

    Raises:
        UsageError: it is none of these.
    """
    words = text.strip().lower()
    if words == "end":
        return end_s
    if found := _CLOCK.match(words):
        return int(found["h"] or 0) * 3600 + int(found["m"]) * 60 + float(found["s"])
    if found := _SECONDS.match(words):
        return float(found["s"])
    if found := _SHARE.match(words):
        return end_s * float(found["p"]) / 100
    hint = "write 47, 1:05, 50% or end"
    raise UsageError(f"'{text}' is no time of the run", code="bad_time", hint=hint)
