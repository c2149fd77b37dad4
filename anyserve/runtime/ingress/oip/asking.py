"""From a request of the protocol to a draft: its model, its prompt, its parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict

from anyserve.runtime.engines.base import Guide, Sampling, Task
from anyserve.runtime.ingress.codecs import ByteCodec, Codec
from anyserve.runtime.ingress.directory import Route
from anyserve.runtime.ingress.front import Front
from anyserve.runtime.ingress.handlers import checked_json, handler_draft
from anyserve.runtime.ingress.meanings import RefusedError, invalid, unsupported
from anyserve.runtime.ingress.oip import inference_pb2 as pb
from anyserve.runtime.ingress.oip.parameters import Routing, read_parameters, read_sampling
from anyserve.runtime.ingress.oip.tensors import Tensor, read_tensors
from anyserve.runtime.ingress.openai.asking import (
    Wishes,
    find_route,
    guide_of,
    make_draft,
    make_sampling,
    stops_of,
)
from anyserve.runtime.ingress.openai.inputs import encode_inputs
from anyserve.runtime.ingress.openai.texts import TextRules
from anyserve.runtime.ingress.openai.wire import Generate
from anyserve.runtime.origin import Draft

VERSION: Final = "1"
TEXT_INPUTS: Final = ("text_input", "prompt", "text")
ID_INPUTS: Final = ("input_ids", "prompt_token_ids")
OPTION_INPUTS: Final = ("sampling_parameters", "stream")
PAYLOAD: Final = "payload"
"""The one input of a handler: JSON."""
OUTPUTS: Final[Mapping[Task, tuple[str, ...]]] = {
    Task.GENERATE: ("text_output", "output_ids"),
    Task.EMBED: ("embedding",),
    Task.HANDLE: ("result",),
}


class _Common(TypedDict):
    """What all requests have."""

    id: str
    model: str
    outputs: frozenset[str]
    raw: bool
    stream: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, ready to be offered. `raw`: its answer's tensors are raw, as its own are."""

    id: str
    model: str
    draft: Draft
    outputs: frozenset[str]
    raw: bool
    stream: bool
    codec: Codec = field(default_factory=ByteCodec)
    rules: TextRules = field(default_factory=TextRules)
    n: int = 1

    @property
    def task(self) -> Task:
        """Who answers: a model that generates or embeds, or a handler."""
        return self.draft.task


async def read_request(front: Front, request: pb.ModelInferRequest, left_ms: int | None) -> Asked:
    """Read a request. `left_ms` is what the call's own deadline leaves.

    Raises:
        RefusedError: it cannot be served as it is; the error names what is wrong.
    """
    check_version(request.model_version)
    tensors = read_tensors(request)
    routing, plain = read_parameters(request.parameters)
    wishes = _wishes(front, routing, left_ms)
    route, task = find_task(front, wishes, request.model_name)
    stream = tensors.get("stream")
    common = _Common(
        id=request.id,
        model=request.model_name or route.model,
        outputs=_outputs(request, task),
        raw=bool(request.raw_input_contents),
        stream=stream is None or stream.flag(),
    )
    if task is Task.HANDLE:
        return Asked(**common, draft=await _to_handler(front, route, wishes, tensors, plain))
    codec = front.codec(route)
    prompt = await _prompt(tensors, codec)
    options = tensors.get("sampling_parameters")
    asked = read_sampling(plain, None if options is None else options.text())
    sampling = _sampling(front, asked, route, task, len(prompt))
    if sampling.n > 1 and "output_ids" in common["outputs"]:
        raise unsupported("output_ids", "are of one choice; ask for text_output, or for n=1")
    draft = make_draft(route, wishes, prompt, sampling, task=task)
    return Asked(
        **common,
        draft=dataclasses.replace(draft, stream="grpc"),
        codec=codec,
        rules=TextRules(
            stops=stops_of(asked),
            stop_ids=frozenset(sampling.stop_token_ids),
            skip_special=asked.skip_special_tokens is not False,
        ),
        n=sampling.n,
    )


async def _to_handler(
    front: Front,
    route: Route,
    wishes: Wishes,
    tensors: Mapping[str, Tensor],
    plain: Mapping[str, Any],
) -> Draft:
    for name in plain:
        raise unsupported(name, "is no parameter of a handler; its payload says all")
    for name in tensors.keys() - {PAYLOAD, "stream"}:
        raise unsupported(name, f"is no input of a handler; there is {PAYLOAD}")
    given = tensors[PAYLOAD].text().encode() if PAYLOAD in tensors else b""
    draft = await handler_draft(front, route.capability, checked_json(given, f"'{PAYLOAD}'"))
    return dataclasses.replace(
        draft,
        attributes=route.attributes,
        entry=route.entry,
        priority=wishes.priority,
        deadline_ms=wishes.deadline_ms,
        affinity=wishes.affinity,
        stream="grpc",
    )


def check_version(version: str) -> None:
    """Every model here has one version.

    Raises:
        RefusedError: another one is asked for.
    """
    if version not in {"", VERSION}:
        text = f"there is no version '{version[:20]}' of any model, only {VERSION}"
        raise RefusedError(text, code="model_not_found", param="model_version")


def _wishes(front: Front, routing: Routing, left_ms: int | None) -> Wishes:
    budgets = [ms for ms in (routing.timeout_ms, left_ms) if ms is not None]
    return Wishes(
        capability=routing.capability,
        entry=routing.entry,
        priority=routing.priority,
        deadline_ms=min(budgets) if budgets else front.settings.timeout_ms,
        first_token_ms=None,
        affinity=routing.affinity,
    )


def find_task(front: Front, wishes: Wishes, model: str) -> tuple[Route, Task]:
    """Where a request goes, and who answers there.

    Raises:
        RefusedError: nobody knows its names, or nobody offers it now.
    """
    route = front.directory.route(
        capability=wishes.capability, model=model or None, entry=wishes.entry
    )
    if front.directory.is_handled(route.capability):
        return route, Task.HANDLE
    task = route.task or Task.GENERATE
    return find_route(front, wishes, model or None, task), task


async def _prompt(tensors: Mapping[str, Tensor], codec: Codec) -> list[int]:
    known = {*TEXT_INPUTS, *ID_INPUTS, *OPTION_INPUTS}
    for name in tensors.keys() - known:
        raise unsupported(name, f"is no input here; there are {', '.join(sorted(known))}")
    prompts = [tensors[name] for name in (*TEXT_INPUTS, *ID_INPUTS) if name in tensors]
    if len(prompts) != 1:
        many = f"{len(prompts)} prompts; give one of" if prompts else "no prompt; give one of"
        raise invalid(f"{many} {', '.join((*TEXT_INPUTS, *ID_INPUTS))}", "inputs")
    tensor = prompts[0]
    given = tensor.text() if tensor.name in TEXT_INPUTS else [tensor.integers()]
    return (await encode_inputs(given, codec, name=tensor.name, most=1))[0]


def _sampling(
    front: Front, asked: Generate, route: Route, task: Task, prompt_tokens: int
) -> Sampling:
    if task is Task.EMBED:
        given = (name for name in Generate.__struct_fields__ if getattr(asked, name) is not None)
        for name in given:
            raise unsupported(name, "is not a parameter of embeddings")
        return Sampling()
    guide: Guide | None = guide_of(None, asked.structured_outputs)
    room = asked.max_tokens or front.directory.default_max_tokens(route, prompt_tokens)
    return make_sampling(asked, route, max_tokens=room, logprobs=None, guide=guide)


def _outputs(request: pb.ModelInferRequest, task: Task) -> frozenset[str]:
    known = OUTPUTS[task]
    wanted = [output.name for output in request.outputs]
    for name in wanted:
        if name not in known:
            text = f"is no output here; there are {', '.join(known)}"
            raise unsupported(name, text)
    return frozenset(wanted or known[:1])
