"""What is common to all requests: headers that route them, and parameters that shape the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from anyserve.core.messages import Code
from anyserve.runtime.engines.base import Guide, Sampling, Task
from anyserve.runtime.ingress.directory import Route
from anyserve.runtime.ingress.front import Front
from anyserve.runtime.ingress.http.exchange import Exchange
from anyserve.runtime.ingress.meanings import RefusedError, invalid, unsupported
from anyserve.runtime.ingress.openai.wire import (
    Generate,
    ResponseFormat,
    StructuredOutputs,
)
from anyserve.runtime.origin import Draft

REAL: Final = frozenset({"vllm"})
"""Engines that compute: only they know log probabilities and constraints on the output."""
_MAX_BUDGET_MS: Final = 24 * 3600 * 1000
_MAX_PRIORITY: Final = 1000


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the headers say."""

    capability: str | None
    entry: str | None
    priority: int
    deadline_ms: int | None
    first_token_ms: int | None
    affinity: str | None


def read_wishes(exchange: Exchange, front: Front, priority: int | None = None) -> Wishes:
    """The routing headers of a request; `priority` is the body's, which the header overrules.

    Raises:
        RefusedError: one of them is no number, or not a sensible one.
    """
    deadline = _number(exchange, "x-anyserve-timeout-ms", 1, _MAX_BUDGET_MS)
    asked = _number(exchange, "x-anyserve-priority", -_MAX_PRIORITY, _MAX_PRIORITY)
    if asked is None:
        asked = priority or 0
    return Wishes(
        capability=exchange.header(b"x-anyserve-capability"),
        entry=exchange.header(b"x-anyserve-entry"),
        priority=asked,
        deadline_ms=deadline if deadline is not None else front.settings.timeout_ms,
        first_token_ms=_number(exchange, "x-slo-ttft-ms", 1, _MAX_BUDGET_MS),
        affinity=exchange.header(b"x-anyserve-affinity"),
    )


def find_route(front: Front, wishes: Wishes, model: str | None, task: Task) -> Route:
    """Where the request goes.

    Raises:
        RefusedError: nobody knows its names, or what serves them does not do this.
    """
    route = front.directory.route(
        capability=wishes.capability, model=model, task=task, entry=wishes.entry
    )
    if route.task is not None and route.task is not task:
        does = "embeds" if route.task is Task.EMBED else "generates"
        text = f"'{route.capability}' {does} text; it cannot {task.value}"
        raise RefusedError(text, code="wrong_task", param="model")
    if route.engine is None and front.directory.is_handled(route.capability):
        text = f"'{route.capability}' is a handler: POST /v1/capabilities/{route.capability}"
        raise RefusedError(text, code="wrong_task", param="model")
    if route.engine is None:
        text = f"no replica offers '{route.capability}', nor anything above it"
        wait_ms = front.retry_after_ms()
        raise RefusedError(text, code=Code.NO_REPLICA.value, retry_after_ms=wait_ms)
    return route


def make_sampling(
    asked: Generate, route: Route, *, max_tokens: int, logprobs: int | None, guide: Guide | None
) -> Sampling:
    """The engine's parameters.

    Raises:
        RefusedError: the engine of this route does not know one of them.
    """
    real = route.engine is not None and route.engine.kind in REAL
    if not real and logprobs is not None:
        raise unsupported("logprobs", _imitated(route))
    if not real and guide is not None:
        raise unsupported("response_format", _imitated(route))
    return Sampling(
        max_tokens=max_tokens,
        min_tokens=min(asked.min_tokens or 0, max_tokens),
        temperature=_or(asked.temperature, 1.0),
        top_p=_or(asked.top_p, 1.0),
        top_k=max(0, asked.top_k or 0),
        min_p=_or(asked.min_p, 0.0),
        seed=asked.seed,
        stop=stops_of(asked) if real else [],
        stop_token_ids=list(asked.stop_token_ids or ()),
        ignore_eos=bool(asked.ignore_eos),
        n=asked.n or 1,
        logprobs=logprobs,
        presence_penalty=_or(asked.presence_penalty, 0.0),
        frequency_penalty=_or(asked.frequency_penalty, 0.0),
        repetition_penalty=_or(asked.repetition_penalty, 1.0),
        logit_bias=_bias(asked.logit_bias),
        guide=guide,
    )


def make_draft(
    route: Route,
    wishes: Wishes,
    prompt: list[int],
    sampling: Sampling,
    *,
    task: Task = Task.GENERATE,
    affinity: str | None = None,
) -> Draft:
    """The request as the cluster takes it."""
    return Draft(
        capability=route.capability,
        prompt_ids=prompt,
        max_tokens=sampling.max_tokens,
        task=task,
        sampling=sampling,
        attributes=route.attributes,
        entry=route.entry,
        priority=wishes.priority,
        deadline_ms=wishes.deadline_ms,
        affinity=wishes.affinity or affinity,
        stream="http",
    )


def stops_of(asked: Generate) -> list[str]:
    """The texts that end the answer."""
    stop = asked.stop
    return [stop] if isinstance(stop, str) else list(stop or ())


def guide_of(format_: ResponseFormat | None, structured: StructuredOutputs | None) -> Guide | None:
    """The constraint on the output, if one was asked for.

    Raises:
        RefusedError: two at once, or one that is none.
    """
    guides = [one for one in (_guide_of_format(format_), _guide_of_structured(structured)) if one]
    if len(guides) > 1:
        raise invalid("only one of response_format and structured_outputs", "structured_outputs")
    return guides[0] if guides else None


def _guide_of_format(format_: ResponseFormat | None) -> Guide | None:
    if format_ is None or format_.type == "text":
        return None
    if format_.type == "json_object":
        return Guide(json_object=True)
    if format_.json_schema is None:
        raise invalid("json_schema is missing", "response_format.json_schema")
    return Guide(json_schema=format_.json_schema.schema)


def _guide_of_structured(structured: StructuredOutputs | None) -> Guide | None:
    if structured is None:
        return None
    fields = (structured.json, structured.regex, structured.choice, structured.grammar)
    given = sum(field is not None for field in fields) + bool(structured.json_object)
    if given != 1:
        raise invalid("exactly one field must be given", "structured_outputs")
    return Guide(
        json_schema=structured.json,
        json_object=bool(structured.json_object),
        regex=structured.regex,
        choice=structured.choice,
        grammar=structured.grammar,
    )


def _bias(given: Mapping[str, float] | None) -> dict[int, float]:
    try:
        return {int(token): bias for token, bias in (given or {}).items()}
    except ValueError:
        raise invalid("its keys are token ids", "logit_bias") from None


def _number(exchange: Exchange, name: str, low: int, high: int) -> int | None:
    text = exchange.header(name.encode())
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:
        raise invalid(f"{name} is not a whole number", name) from None
    if not low <= number <= high:
        raise invalid(f"{name} is not within {low} and {high}", name)
    return number


def _imitated(route: Route) -> str:
    kind = route.engine.kind if route.engine is not None else "engine"
    return f"is not supported by the {kind} engine of '{route.capability}'"


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
