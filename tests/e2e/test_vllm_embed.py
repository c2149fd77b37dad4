from __future__ import annotations

import asyncio
import math
from typing import Protocol

import pytest

from anyserve.runtime.engines.base import Delta, EngineRequest, Task
from anyserve.runtime.models.tokenizers import TextTokenizer
from anyserve.runtime.worker.ipc import Failed

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]


class Worker(Protocol):
    """What `conftest.VllmWorker` offers (conftest modules cannot be imported)."""

    tokenizer: TextTokenizer
    failed: dict[str, Failed]

    async def answer(self, request: EngineRequest) -> list[Delta]: ...


async def vector(worker: Worker, text: str) -> list[float]:
    request = EngineRequest(key=text, prompt_ids=worker.tokenizer.encode(text), task=Task.EMBED)
    (delta,) = await worker.answer(request)
    assert delta.done
    assert delta.embedding is not None
    return delta.embedding


def likeness(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


async def test_near_meanings_have_near_vectors(minilm: Worker) -> None:
    cat, kitten, stocks = await asyncio.gather(
        vector(minilm, "A cat sits on the mat."),
        vector(minilm, "A kitten is lying on a rug."),
        vector(minilm, "Share prices fell sharply."),
    )

    assert len(cat) == 384
    assert math.isclose(likeness(cat, cat), 1.0, abs_tol=1e-3)
    assert likeness(cat, kitten) > likeness(cat, stocks) + 0.2


async def test_a_text_over_the_context_fails_alone(minilm: Worker) -> None:
    long = EngineRequest(key="long", prompt_ids=[2000] * 257, task=Task.EMBED)

    refused, fine = await asyncio.gather(minilm.answer(long), vector(minilm, "Fine."))

    assert refused == []
    assert minilm.failed["long"].code == "too_long"
    assert len(fine) == 384
