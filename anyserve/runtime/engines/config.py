"""From a scenario's engine (`core.spec.EngineSpec`) to a worker's configuration."""

from __future__ import annotations

from anyserve.core.engine.profiles import profile_for
from anyserve.core.placement import Devices
from anyserve.core.spec import EngineSpec
from anyserve.errors import UsageError
from anyserve.runtime.engines.base import EngineConfig, EngineKind, Task
from anyserve.runtime.models.resolve import ResolvedModel


def engine_config(
    spec: EngineSpec,
    model: ResolvedModel | None = None,
    *,
    seed: int = 0,
    devices: Devices | None = None,
    gpu_turn: str | None = None,
) -> EngineConfig:
    """Make the configuration of a worker. `model` is `spec.model` made ready (vLLM needs it).

    `devices`: the GPUs that it has (None on the CPU); `gpu_turn`: the file to lock while loading.

    Raises:
        UsageError: No such engine, or an engine that needs a model got none.
    """
    if spec.kind not in set(EngineKind):
        raise UsageError(f"There is no engine {spec.kind!r}.", code="engine_unknown")
    kind = EngineKind(spec.kind)
    if kind is EngineKind.VLLM and model is None:
        raise UsageError("The vllm engine needs a model.", code="model_missing")
    task = Task(spec.task)
    options = dict(spec.options)
    tokens_per_step = int(options.pop("tokens_per_step", 1)) if kind is EngineKind.ECHO else 1
    profile = profile_for(spec.profile or spec.model or "", embeds=task is Task.EMBED)
    return EngineConfig(
        kind=kind,
        model=model.path if model is not None else "",
        name=spec.model or "",
        task=task,
        max_model_len=spec.max_model_len,
        max_num_seqs=spec.max_num_seqs,
        max_num_batched_tokens=spec.max_num_batched_tokens,
        kv_cache_gib=spec.kv_cache_gib,
        gpus=spec.gpus if devices is None else len(devices.indices) * devices.share,
        cuda_visible_devices=None if devices is None else devices.visible,
        gpu_memory_share=None if devices is None else devices.memory_share,
        gpu_turn=gpu_turn,
        threads=spec.threads,
        dtype=spec.dtype,
        seed=seed,
        profile=profile if kind is EngineKind.MODEL else None,
        step_interval_ms=spec.step_ms,
        tokens_per_step=tokens_per_step,
        args=options,
    )
