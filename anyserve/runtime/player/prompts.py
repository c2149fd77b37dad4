"""Turns planned requests into drafts: token ids of the planned count, for the model that serves."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Final, Protocol

import msgspec

from anyserve.core.capability import Ladder
from anyserve.core.spec import ClusterSpec
from anyserve.errors import AnyServeError
from anyserve.runtime.engines.base import Sampling, Task
from anyserve.runtime.models.prompts import PromptMaker
from anyserve.runtime.models.resolve import resolve_model
from anyserve.runtime.models.tokenizers import TextTokenizer
from anyserve.runtime.origin import Draft
from anyserve.workload.traffic import PlannedRequest, Segment

IMAGINARY_VOCABULARY: Final = 32_000
NO_ANSWERS: Final[Mapping[int, list[int]]] = {}


class PromptSource(Protocol):
    """Makes the token ids of a prompt."""

    def materialise(self, segments: tuple[Segment, ...]) -> list[int]:
        """As many ids as the segments are long; equal segments give equal ids."""
        ...


class TokenizedText:
    """Real text in the vocabulary of one model."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self._maker = PromptMaker(tokenizer)

    def materialise(self, segments: tuple[Segment, ...]) -> list[int]:
        """See `PromptSource`."""
        return self._maker.materialise(segments)


class ImaginaryText:
    """Ids without a text, where no tokenizer is at hand: for engines that compute nothing."""

    def materialise(self, segments: tuple[Segment, ...]) -> list[int]:
        """See `PromptSource`."""
        ids: list[int] = []
        for number, length in segments:
            draw = random.Random(number)  # noqa: S311 - made-up text
            ids += [draw.randrange(IMAGINARY_VOCABULARY) for _ in range(length)]
        return ids


class Prompts:
    """The prompt source of each capability."""

    def __init__(self, cluster: ClusterSpec) -> None:
        self._sources: dict[str, PromptSource] = {}
        models = _models(cluster)
        made: dict[str, PromptSource] = {}
        ladder = Ladder(cluster.ladder.upgrades)
        for capability in cluster.capabilities:
            rungs = ladder.rungs(capability.name)
            model = next((models[rung] for rung in rungs if rung in models), None)
            if model is not None:
                if model not in made:
                    made[model] = _source(model, needed=_is_computed(cluster, model))
                self._sources[capability.name] = made[model]

    def source(self, capability: str) -> PromptSource:
        """Where prompts of this capability come from."""
        return self._sources.get(capability) or ImaginaryText()

    def tokenizer(self, capability: str) -> TextTokenizer | None:
        """The tokenizer that turns answers of this capability into text, if there is one."""
        source = self._sources.get(capability)
        return source.tokenizer if isinstance(source, TokenizedText) else None

    def _prompt(self, planned: PlannedRequest, answers: Mapping[int, list[int]]) -> list[int]:
        source = self.source(planned.capability)
        if not answers:
            return source.materialise(planned.segments)
        ids: list[int] = []
        for told, segments in _parts(planned.segments, answers):
            if told:
                ids += [token for name, _ in segments for token in answers[name]]
            else:
                ids += source.materialise(segments)
        return ids

    def draft(
        self,
        planned: PlannedRequest,
        answers: Mapping[int, list[int]] = NO_ANSWERS,
    ) -> Draft:
        """The planned request as an origin offers it; when it is due is the player's to say.

        `answers`: token ids that earlier requests were answered with, by the name of the text,
        where its prompt holds them.
        """
        sampling = msgspec.convert({**planned.sampling, "max_tokens": planned.max_tokens}, Sampling)
        return Draft(
            capability=planned.capability,
            prompt_ids=self._prompt(planned, answers),
            max_tokens=planned.max_tokens,
            task=Task(planned.task),
            sampling=sampling,
            attributes=planned.attributes,
            entry=planned.entry,
            priority=planned.priority,
            deadline_ms=planned.deadline_ms,
            affinity=planned.affinity,
            payload=msgspec.json.encode(planned.payload),
            stream=planned.stream,
            phase=planned.phase,
        )


def _parts(
    segments: tuple[Segment, ...], answers: Mapping[int, list[int]]
) -> Iterator[tuple[bool, tuple[Segment, ...]]]:
    """The segments in runs that are answers, or are not."""
    for told, run in groupby(segments, lambda segment: segment[0] in answers):
        yield told, tuple(run)


def _models(cluster: ClusterSpec) -> Mapping[str, str]:
    """The model that serves each capability: that of the first replica that offers it."""
    models: dict[str, str] = {}
    for replica in cluster.replicas:
        for offer in replica.offers:
            if replica.engine.model is not None:
                models.setdefault(offer.capability, replica.engine.model)
    return models


def _is_computed(cluster: ClusterSpec, model: str) -> bool:
    """Whether a real engine reads prompts for this model."""
    return any(
        replica.engine.model == model and replica.engine.kind == "vllm"
        for replica in cluster.replicas
    )


def _source(model: str, *, needed: bool) -> PromptSource:
    try:
        resolved = resolve_model(model)
        if resolved.tokenizer_path is not None:
            return TokenizedText(TextTokenizer(Path(resolved.path)))
    except AnyServeError:
        if needed:
            raise
    return ImaginaryText()
