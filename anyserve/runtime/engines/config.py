"""From a scenario's engine (`core.spec.EngineSpec`) to a worker's configuration."""

from __future__ import annotations

from anyserve.core.placement import Devices
from anyserve.core.spec import EngineSpec
from anyserve.errors import UsageError
from anyserve.runtime.engines.base import EngineConfig, EngineKind, Task
from anyserve.runtime.models.resolve import ResolvedModel
from anyserve.workload.plugins import is_plugin_name
from anyserve.workload.profiles import known_profile


def engine_config(
    spec: EngineSpec,
    model: ResolvedModel | None = None,
    *,
    seed: int = 0,
    devices: Devices | None = None,
    gpu_turn: str | None = None,
    scenario_dir: str | None = None,
) -> EngineConfig:
    """Make the configuration of a worker. `model` is `spec.model` made ready (vLLM needs it).

    `devices`: the GPUs that it has (None on the CPU); `gpu_turn`: the file to lock while loading.
    `scenario_dir`: where a user's step-time model may lie.

    Raises:
        UsageError: No such engine or profile, or an engine that needs a model got none.
    """
    if spec.kind not in set(EngineKind):
        raise UsageError(f"There is no engine {spec.kind!r}.", code="engine_unknown")
    kind = EngineKind(spec.kind)
    if kind is EngineKind.VLLM and model is None:
        raise UsageError("The vllm engine needs a model.", code="model_missing")
    task = Task(spec.task)
    options = dict(spec.options)
    tokens_per_step = int(options.pop("tokens_per_step", 1)) if kind is EngineKind.ECHO else 1
    models = kind is EngineKind.MODEL
    profile = spec.profile or ""
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
        profile=known_profile(spec)[0] if models else None,
        step_time=profile if models and is_plugin_name(profile) else "",
        step_scale=spec.step_scale if models else 1.0,
        prefill_scale=spec.prefill_scale if models else 1.0,
        plugin_dir=scenario_dir,
        step_interval_ms=spec.step_ms,
        tokens_per_step=tokens_per_step,
        args=options,
    )
