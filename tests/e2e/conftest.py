"""Real vLLM with real small models, forked from a real zygote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from anyserve.runtime.engines.base import EngineKind
from anyserve.runtime.engines.detect import detect

pytest.register_assert_rewrite("embedding", "generating", "shipped", "vllm_worker")

from shipped import Run, up  # noqa: E402 - after its asserts are made to explain themselves
from vllm_worker import VllmWorker, running_zygote, vllm_worker  # noqa: E402


@pytest.fixture(scope="session")
def vllm_zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = detect()
    if found.engine is not EngineKind.VLLM:
        pytest.skip(found.reason)
    with running_zygote(tmp_path_factory.mktemp("zygote")) as path:
        yield path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def smollm2(
    vllm_zygote: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VllmWorker]:
    log = tmp_path_factory.mktemp("smollm2") / "worker.log"
    async with vllm_worker(vllm_zygote, "smollm2-135m", log, 512) as worker:
        yield worker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def minilm(
    vllm_zygote: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VllmWorker]:
    log = tmp_path_factory.mktemp("minilm") / "worker.log"
    async with vllm_worker(vllm_zygote, "minilm", log, 256) as worker:
        yield worker


@pytest.fixture(scope="module")
def delegation(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return up("delegation", tmp_path_factory.mktemp("delegation"))
