"""What only engines on GPUs have: a device, a share of its memory, a fork before CUDA."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from generating import ask, ids_of
from vllm_worker import VllmWorker, vllm_worker

from anyserve.runtime.gpus import Gpu, find_gpus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]
GIB = 1 << 30


async def test_the_engine_is_on_the_gpu_and_was_forked_before_cuda(
    smollm2: VllmWorker, zygote_log: Path
) -> None:
    assert smollm2.info.device == "cuda"
    assert smollm2.info.kv_tokens > 0
    said = zygote_log.read_text()  # noqa: ASYNC240 - a small file, and nothing else runs
    assert "started CUDA" not in said
    assert "cannot preload" not in said


async def test_it_takes_no_more_than_its_share(smollm2: VllmWorker, gpus: list[Gpu]) -> None:
    before, now = gpus[0].info, find_gpus()[0].info

    assert 0 < before.free_bytes - now.free_bytes < 0.4 * before.memory_bytes + GIB


async def test_two_that_start_at_once_get_equal_caches(vllm_zygote: Path, tmp_path: Path) -> None:
    """Without turns each takes the other's loading for its own, and one gets next to nothing."""
    sizes: list[int] = []

    async def start(name: str) -> None:
        log = tmp_path / f"{name}.log"
        async with vllm_worker(vllm_zygote, "smollm2-135m", log, 512, gpus=0.2) as worker:
            deltas = await worker.answer(ask(worker, "The capital of France is"))
            assert "Paris" in worker.tokenizer.decode(ids_of(deltas))
            sizes.append(worker.info.kv_tokens)
            await both.wait()

    both = asyncio.Barrier(2)
    async with asyncio.TaskGroup() as group:
        group.create_task(start("one"))
        group.create_task(start("two"))

    assert max(sizes) < 1.2 * min(sizes)
