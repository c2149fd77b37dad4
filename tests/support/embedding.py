"""What an engine that embeds must do, on whatever device it runs."""

from __future__ import annotations

import asyncio
import math

from vllm_worker import VllmWorker

from anyserve.runtime.engines.base import EngineRequest, Task


async def vector(worker: VllmWorker, text: str) -> list[float]:
    request = EngineRequest(key=text, prompt_ids=worker.tokenizer.encode(text), task=Task.EMBED)
    (delta,) = await worker.answer(request)
    assert delta.done
    assert delta.embedding is not None
    return delta.embedding


def likeness(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


class Embedding:
    """A directory of tests makes a class of it and gives the fixture `minilm`."""

    async def test_near_meanings_have_near_vectors(self, minilm: VllmWorker) -> None:
        cat, kitten, stocks = await asyncio.gather(
            vector(minilm, "A cat sits on the mat."),
            vector(minilm, "A kitten is lying on a rug."),
            vector(minilm, "Share prices fell sharply."),
        )

        assert len(cat) == 384
        assert math.isclose(likeness(cat, cat), 1.0, abs_tol=1e-3)
        assert likeness(cat, kitten) > likeness(cat, stocks) + 0.2

    async def test_a_text_over_the_context_fails_alone(self, minilm: VllmWorker) -> None:
        long = EngineRequest(key="long", prompt_ids=[2000] * 257, task=Task.EMBED)

        refused, fine = await asyncio.gather(minilm.answer(long), vector(minilm, "Fine."))

        assert refused == []
        assert minilm.failed["long"].code == "too_long"
        assert len(fine) == 384
