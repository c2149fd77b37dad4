"""The tests of tests/e2e on NVIDIA GPUs, and what only GPUs have. Skipped where there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from anyserve.runtime.engines.detect import VllmBuild, detect
from anyserve.runtime.gpus import Gpu, find_gpus

pytest.register_assert_rewrite("embedding", "generating", "shipped", "vllm_worker")

from shipped import Run, up  # noqa: E402 - after its asserts are made to explain themselves
from vllm_worker import VllmWorker, running_zygote, vllm_worker  # noqa: E402

HERE = Path(__file__).parent
SHARE = 0.4
"""Of one GPU's memory, for each engine of these tests; two are up at a time."""


def why_not() -> str:
    """Why these tests cannot run here; "" where they can."""
    found = detect()
    if found.build is not VllmBuild.CUDA:
        return f"needs a CUDA build of vLLM. Here: {found.reason}"
    return "" if find_gpus() else "needs an NVIDIA GPU, and nvidia-smi shows none"


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Skip before any fixture is made."""
    ours = [item for item in items if HERE in item.path.parents]
    reason = why_not() if ours else ""
    for item in ours:
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def gpus() -> list[Gpu]:
    """As they were before any engine of ours."""
    return find_gpus()


@pytest.fixture(scope="session")
def zygote_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zygote") / "zygote.log"


@pytest.fixture(scope="session")
def vllm_zygote(zygote_log: Path) -> Iterator[Path]:
    with running_zygote(zygote_log.parent) as path:
        yield path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def smollm2(
    gpus: list[Gpu], vllm_zygote: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VllmWorker]:
    log = tmp_path_factory.mktemp("smollm2") / "worker.log"
    async with vllm_worker(vllm_zygote, "smollm2-135m", log, 512, gpus=SHARE) as worker:
        yield worker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def minilm(
    gpus: list[Gpu], vllm_zygote: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VllmWorker]:
    log = tmp_path_factory.mktemp("minilm") / "worker.log"
    async with vllm_worker(vllm_zygote, "minilm", log, 256, gpus=SHARE) as worker:
        yield worker


@pytest.fixture(scope="module")
def delegation(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return up("delegation", tmp_path_factory.mktemp("delegation"))
