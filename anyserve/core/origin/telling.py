"""What an origin tells of a request: the event, or what is counted where not all is told."""

from __future__ import annotations

from anyserve.core.counts import OfferedCount, OutcomeCount
from anyserve.core.effects import Effect, Outcome
from anyserve.core.enums import OUTCOME_WORDS
from anyserve.core.events import RequestOffered, RequestOutcome
from anyserve.core.inputs import Offered
from anyserve.core.origin.pending import Pending


def tell_offered(pending: Pending, offered: Offered) -> Effect:
    """A client wants it."""
    request = pending.request
    if not pending.explained:
        return OfferedCount(pending.id, request.asked, request.prompt_tokens, offered.intended_ns)
    return RequestOffered(
        id=pending.id,
        capability=request.asked,
        prompt_tokens=request.prompt_tokens,
        max_tokens=request.max_tokens,
        entry=offered.entry,
        intended_ns=offered.intended_ns,
        attributes=request.attributes,
        priority=request.priority,
        deadline_ns=pending.deadline_ns,
        stream=offered.stream,
        phase=offered.phase,
        parent=request.parent,
    )


def tell_outcome(pending: Pending, outcome: Outcome, now: int) -> Effect:
    """It is decided."""
    word, code = OUTCOME_WORDS[outcome.kind], outcome.code.value if outcome.code else None
    if not pending.explained:
        return OutcomeCount(
            pending.id, word, code, outcome.served_by, outcome.n_tokens, pending.first_ns, now,
            pending.itl_ns,
        )  # fmt: skip
    return RequestOutcome(
        id=pending.id,
        outcome=word,
        end_ns=now,
        code=code,
        message=outcome.message,
        retry_after_ms=outcome.retry_after_ms,
        first_ns=pending.first_ns if pending.has_answer else None,
        n_tokens=outcome.n_tokens,
        itl_ns=pending.itl_ns,
        finish=outcome.finish,
        served_by=outcome.served_by,
        attempt=outcome.attempt,
        submissions=pending.submission,
    )
