"""Whether the engines of a cluster fit into this machine's memory, said before they fail."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from anyserve.core.spec import ClusterSpec
from anyserve.errors import StartError
from anyserve.runtime.engines.detect import VllmBuild, detect
from anyserve.runtime.supervisor.config import SupervisorConfig

OVERRIDE_ENV: Final = "ANYSERVE_MEMORY_CHECK"
_GIB: Final = 2**30
_ENGINE_GIB: Final = 1.0
"""What a vLLM engine with a small model takes beside its KV cache: 0.4 GiB once it is ready, its
share of the zygote's pages included, and twice that while it loads."""
_CGROUP: Final = Path("/sys/fs/cgroup")


def counts_memory(config: SupervisorConfig, environ: Mapping[str, str]) -> bool:
    """Whether memory is compared before the start; somebody may know better."""
    return config.check_memory and environ.get(OVERRIDE_ENV) != "0"


def needed_gib(cluster: ClusterSpec, build: VllmBuild | None = None) -> dict[str, float]:
    """Replica -> main memory its engine will take; replicas that need next to none are left out.

    `build`: of vLLM, if not the installed one. With a CUDA build all caches are on GPUs.
    """
    replicas = [one for one in cluster.replicas if one.engine.kind == "vllm"]
    if not replicas or (build or detect().build) is VllmBuild.CUDA:
        return {}
    return {
        one.id: one.engine.kv_cache_gib + _ENGINE_GIB for one in replicas if one.engine.gpus == 0
    }


def available_gib(cgroup: Path = _CGROUP) -> float:
    """What this process may still take: of the machine, or of its container if that is less."""
    available = float(psutil.virtual_memory().available)
    try:
        limit = float((cgroup / "memory.max").read_text())
        used = float((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return available / _GIB
    return min(available, limit - used) / _GIB


def check_memory(cluster: ClusterSpec, free_gib: float) -> None:
    """Compare.

    Raises:
        StartError: it does not fit; the message shows the sum.
    """
    parts = needed_gib(cluster)
    total_gib = sum(parts.values())
    if total_gib <= free_gib:
        return
    terms = " + ".join(f"{name} {gib:.1f}" for name, gib in parts.items())
    message = (
        f"not enough memory: {terms} = {total_gib:.1f} GiB needed, {free_gib:.1f} GiB available "
        f"(each engine: its kv_cache_gib and about {_ENGINE_GIB:g} GiB)"
    )
    hint = f"lower kv_cache_gib or the number of replicas, or set {OVERRIDE_ENV}=0 to try anyway"
    raise StartError(message, code="not_enough_memory", hint=hint)
