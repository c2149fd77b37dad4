"""Who said what to whom about one request, as its events tell it.

The bus is not recorded; but each event stands where a process sent, or acted upon, one message of
the protocol. Messages that leave no event (credits, heartbeats, repairs) are not listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from anyserve.core.events import (
    AttemptAdmitted,
    AttemptEnded,
    AttemptFirstToken,
    AttemptHandedBack,
    AttemptStarted,
    Envelope,
    RequestDelegated,
    RequestFirstToken,
    RequestOffered,
    RequestOutcome,
    RequestQueued,
    RequestReentered,
    RequestRejected,
    RequestRouted,
    RequestSubmitted,
)

SCHEDULER = "scheduler"


@dataclass(frozen=True, slots=True)
class Said:
    """`message` is the protocol's name; in brackets what happened inside `sender`, where `to` is
    empty. `t_ns` on the clock of `boot`."""

    t_ns: int
    boot: str
    sender: str
    to: str
    message: str
    summary: str
    attempt: int | None = None


def conversation(envelopes: Iterable[Envelope]) -> list[Said]:
    """What was said about the request that `envelopes` are about, in order of time."""
    known = list(envelopes)
    origin = next(
        (one.source for one in known if isinstance(one.event, RequestOffered)), "the origin"
    )
    said = [one for envelope in known for one in _said(envelope, origin)]
    return sorted(said, key=lambda one: one.t_ns)


def _said(envelope: Envelope, origin: str) -> Iterator[Said]:
    event, source = envelope.event, envelope.source
    found = _of_request(event, source, origin) or _of_attempt(event, source, origin)
    if found is not None:
        to, message, summary = found
        attempt = getattr(event, "attempt", None)
        yield Said(envelope.t, envelope.boot, source, to, message, summary, attempt)


_Found = tuple[str, str, str]


def _of_request(event: object, source: str, origin: str) -> _Found | None:  # noqa: PLR0911 - one case per event
    match event:
        case RequestOffered():
            return (
                "",
                "(offered)",
                f"{event.capability}, {event.prompt_tokens} in, up to {event.max_tokens} out",
            )
        case RequestSubmitted():
            kind = "submit" if event.entry == SCHEDULER else "entry"
            again = f"submission {event.submission}, resumes {event.resumed} tokens"
            resent = "again" if event.resent else ""
            return event.entry, kind, again if event.submission > 1 else resent
        case RequestQueued():
            return origin, "accepted", f"waits for {event.capability}, position {event.depth}"
        case RequestRouted():
            return event.replica, "assign", f"{event.policy}: {event.reason}"
        case RequestDelegated():
            edge = f"{event.from_capability} → {event.to_capability}"
            return "", "(counted)", f"delegation {event.count}: {edge}"
        case RequestReentered():
            to = origin if event.kind == "lost" else ""
            message = "attempt_lost" if event.kind == "lost" else "(counted)"
            return to, message, f"{event.kind} {event.count} {event.detail}".strip()
        case RequestRejected():
            return origin, "rejected", f"{event.code} {event.detail}".strip()
        case RequestFirstToken():
            return "", "(first token)", "the client has it"
        case RequestOutcome():
            why = event.code or event.finish or ""
            return SCHEDULER, "settled", f"{event.outcome}, {event.n_tokens} tokens {why}".strip()
        case _:
            del source
            return None


def _of_attempt(event: object, source: str, origin: str) -> _Found | None:
    del source
    match event:
        case AttemptAdmitted():
            return SCHEDULER, "admitted", f"stays here for {event.capability}"
        case AttemptStarted():
            return SCHEDULER, "started", f"given to the engine for {event.capability}"
        case AttemptFirstToken():
            return origin, "frame", "first token"
        case AttemptHandedBack():
            detail = f" ({event.detail})" if event.detail else ""
            return SCHEDULER, event.kind, f"{event.reason}{detail}"
        case AttemptEnded():
            code = f", {event.code}" if event.code else ""
            return (
                SCHEDULER,
                "ended",
                f"{event.status}, {event.n_tokens} tokens{code}",
            )
        case _:
            return None
