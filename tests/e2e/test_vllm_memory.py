"""What an engine on the CPU keeps for itself, and what it reads from pages that others have too."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from own_process import said_by
from vllm_worker import VllmWorker

from anyserve.runtime.engines.detect import VllmBuild, detect

KV_CACHE_MIB = 256
OWN_MIB = 480
"""A worker of SmolLM2-135M took 340 beside its cache, 600 before it was made to share."""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(detect().build is not VllmBuild.CPU, reason="needs vLLM's CPU build"),
]


async def test_a_worker_shares_what_it_can(smollm2: VllmWorker) -> None:
    process = psutil.Process(smollm2.client.pid)
    own_mib = sum(one.private_dirty for one in process.memory_maps()) / 2**20

    assert any(one.path.endswith("model.safetensors") for one in process.memory_maps())
    assert own_mib < KV_CACHE_MIB + OWN_MIB


async def test_a_slim_model_computes_what_it_did(tmp_path: Path) -> None:
    unchanged = {"same weights": True, "packed later": True, "same products": True}
    assert said_by("slim_model.py", tmp_path) == {
        "as_filed": {**unchanged, "mapped": True},
        "changed": {**unchanged, "mapped": False},
    }
