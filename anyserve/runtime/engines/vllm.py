"""vLLM in the worker's own process: one adapter for the CUDA and the CPU build.

`LLMEngine` runs with its core in process (no second process to feed), so a step of ours is a step
of vLLM's scheduler, and one frame per step carries all its requests. Only documented names of vLLM
are used but for reads for `EngineInfo`, which are guarded, and what `vllm_steps.py` follows.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from anyserve.runtime.engines import vllm_requests as translate
from anyserve.runtime.engines.allocator import give_back
from anyserve.runtime.engines.base import (
    Delta,
    EngineConfig,
    EngineInfo,
    EngineKind,
    EngineRequest,
    EngineRequestError,
    EngineStats,
    Report,
    Sampling,
    StepOutput,
    Task,
    check_request,
    room_left,
    spent,
)
from anyserve.runtime.engines.cpu_attention import avoid_amx_attention
from anyserve.runtime.engines.gpu_turn import gpu_turn
from anyserve.runtime.engines.step_record import StepRecord, step_record
from anyserve.runtime.engines.vllm_memory import slim, use_one_tokenizer
from anyserve.runtime.engines.vllm_steps import VllmSteps, scheduler_of

_log = logging.getLogger(__name__)
_CPU_BATCHED_TOKENS: Final = 256  # a step of 2048 tokens takes seconds on a CPU core
_GIB: Final = 1 << 30
_CALLS: Final = 3
"""Where steps are planned ahead, one call may send off the first and one end an empty one."""
_QUIET_ENV: Final = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",  # the in-process group talks to itself only
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TOKENIZERS_PARALLELISM": "false",
}


class VllmEngine:
    """An `Engine` over vLLM's `LLMEngine`."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._engine: Any = None
        self._info: EngineInfo | None = None
        self._streams: dict[str, translate.Stream] = {}
        self._ready: list[Delta] = []  # deltas that need no step
        self._steps = VllmSteps()
        self._record: StepRecord | None = None

    def start(self, report: Report) -> EngineInfo:
        """Import vLLM, load the model, run its warm-up."""
        report("importing vLLM", 0.0)
        prepare_environment(self._config)
        import torch  # noqa: PLC0415 - heavy; a forked worker finds it imported
        import vllm  # noqa: PLC0415
        from vllm.v1.engine.llm_engine import LLMEngine  # noqa: PLC0415

        cpu = _is_cpu()
        if cpu:
            avoid_amx_attention()
            torch.set_num_threads(self._config.threads)
        if cpu and self._config.args.get("enforce_eager", True):
            # Single functions of vLLM's sampler are compiled all the same, at their first use (log
            # probabilities): half a minute within a step, and the worker counts as hung.
            torch.compiler.set_stance("force_eager")
        use_one_tokenizer()
        report("loading the model", 0.2)
        engine_config = vllm.EngineArgs(
            **_engine_args(self._config, cpu=cpu)
        ).create_engine_config()
        with gpu_turn(self._config.gpu_turn, lambda: report("waiting for the GPU", 0.2)):
            self._engine = LLMEngine.from_vllm_config(
                engine_config, stat_loggers=[self._steps.logger()]
            )
        self._steps.follow(self._engine)
        if cpu:
            self._engine.apply_model(lambda model: slim(model, Path(self._config.model)))
        self._info = _info(self._engine, engine_config, vllm.__version__, cpu=cpu)
        give_back()
        if cpu:  # on a GPU vLLM has warmed up itself
            report("warming up", 0.9)
            self._warm_up()
        self._record = step_record(self._engine)
        report("ready", 1.0)
        return self._info

    def _warm_up(self) -> None:
        """Make the first steps of all, which take longer than others, before anybody waits: the
        largest there are, so that the heap has all the memory that a step ever needs."""
        info = self._info
        assert info is not None
        prompt = [1] * max(1, min(info.max_num_batched_tokens, info.max_model_len - 2))
        sampling = Sampling(max_tokens=2, temperature=0.0, ignore_eos=True)
        self.submit(
            EngineRequest(
                key="warm-up", prompt_ids=prompt, task=self._config.task, sampling=sampling
            )
        )
        while self.has_work:
            self.step()
        self._steps.forget()

    def submit(self, request: EngineRequest) -> None:
        """Hand a request to vLLM, as token ids."""
        assert self._info is not None
        info = self._info
        check_request(request, self._config.task, info.max_model_len, info.vocab_size)
        room = room_left(request, info.max_model_len)
        if request.task is Task.GENERATE and room == 0:
            self._ready.append(spent(request))
            return
        try:
            self._engine.add_request(
                request.key,
                translate.prompt(request),
                translate.parameters(request, room),
                arrival_time=request.arrival_s,
                priority=request.priority if self._priorities else 0,
            )
        except Exception as error:
            self._engine.abort_request([request.key])  # it may have been taken in by half
            if isinstance(error, translate.refusals()):
                raise EngineRequestError(str(error), code="invalid_request") from error
            raise
        self._streams[request.key] = translate.Stream(request)

    def cancel(self, key: str) -> None:
        """Abort a request; its KV blocks are free before the next step."""
        self._ready = [delta for delta in self._ready if delta.key != key]
        if self._streams.pop(key, None) is not None:
            self._engine.abort_request([key])

    @property
    def has_work(self) -> bool:
        """Whether a request is waiting or running."""
        return bool(self._ready) or self._engine.has_unfinished_requests()

    def step(self) -> StepOutput:
        """One step of vLLM's scheduler and model."""
        deltas, self._ready = self._ready, []
        if self._engine.has_unfinished_requests():
            if self._record is not None:
                self._record.begin()
            for _ in range(_CALLS):
                for output in self._engine.step():
                    deltas.extend(self._fold(output))
                if self._steps.computed or not self._engine.has_unfinished_requests():
                    break
            if self._record is not None:
                self._record.end()
        return StepOutput(deltas, self.stats())

    def stats(self) -> EngineStats:
        """What vLLM's scheduler reported with the latest step."""
        return self._steps.stats(len(self._streams))

    def stop(self) -> None:
        """Drop the engine; the process ends soon after."""
        if self._engine is not None:
            self._engine.engine_core.shutdown()
            if self._record is not None:
                self._record.close()
            self._engine = None

    @property
    def _priorities(self) -> bool:
        return bool(self._config.args.get("scheduling_policy", "priority") == "priority")

    def _fold(self, output: Any) -> Sequence[Delta]:
        stream = self._streams.get(output.request_id)
        if stream is None:  # cancelled while the step ran
            return ()
        deltas = stream.fold(output)
        if output.finished:
            del self._streams[output.request_id]
        return deltas


def prepare_environment(config: EngineConfig) -> None:
    """Set what vLLM reads from the environment; call before the engine is built.

    A forked worker has vLLM imported already, which is fine: vLLM reads these when used, and CUDA
    when it starts, which no fork of ours has seen before (`worker/zygote.py`).
    """
    os.environ.update(_QUIET_ENV)
    os.environ["OMP_NUM_THREADS"] = str(config.threads)
    if config.cuda_visible_devices is not None:
        # CUDA's own order is by speed; ours is that of nvidia-smi.
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        os.environ["CUDA_VISIBLE_DEVICES"] = config.cuda_visible_devices
    if os.path.isdir(config.model):  # noqa: PTH112 - a hub id is no path
        os.environ["HF_HUB_OFFLINE"] = "1"


def _is_cpu() -> bool:
    from vllm.platforms import current_platform  # noqa: PLC0415

    return bool(current_platform.is_cpu())


def _engine_args(config: EngineConfig, *, cpu: bool) -> dict[str, Any]:
    import vllm  # noqa: PLC0415

    known = {field.name for field in dataclasses.fields(vllm.EngineArgs)}
    args: dict[str, Any] = {
        "model": config.model,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "seed": config.seed,
        "dtype": config.dtype,
        "scheduling_policy": "priority",
        "distributed_executor_backend": "uni",
        "disable_log_stats": False,
    }
    if config.task is Task.EMBED:
        args["runner"] = "pooling"
    if cpu:
        args |= _cpu_args(config)
    else:
        args |= gpu_args(config)
    args |= config.args
    unknown = sorted(args.keys() - known)
    if unknown:
        _log.warning("vLLM %s does not know the arguments %s", vllm.__version__, unknown)
    return {name: value for name, value in args.items() if name in known and value is not None}


def gpu_args(config: EngineConfig) -> dict[str, Any]:
    """What vLLM is told of its part of the GPUs."""
    args: dict[str, Any] = {}
    if config.gpu_memory_share is not None:
        args["gpu_memory_utilization"] = config.gpu_memory_share
    elif 0 < config.gpus < 1:
        args["gpu_memory_utilization"] = config.gpus
    if config.gpus > 1:
        args["tensor_parallel_size"] = int(config.gpus)
        args["distributed_executor_backend"] = "mp"
    return args


def _cpu_args(config: EngineConfig) -> dict[str, Any]:
    args: dict[str, Any] = {"enforce_eager": True}  # compiling takes longer than it saves
    if config.dtype == "auto" and not has_bfloat16(_cpu_flags()):
        args["dtype"] = "float32"
    if config.max_num_batched_tokens is None:
        args["max_num_batched_tokens"] = _cpu_batched_tokens(config)
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
    args["kv_cache_memory_bytes"] = int(config.kv_cache_gib * _GIB)
    return args


def _cpu_batched_tokens(config: EngineConfig) -> int | None:
    if config.task is Task.GENERATE:
        return _CPU_BATCHED_TOKENS
    # An encoder computes a text as a whole: the step must hold the longest one.
    return None if config.max_model_len is None else max(_CPU_BATCHED_TOKENS, config.max_model_len)


def has_bfloat16(flags: set[str]) -> bool:
    """Whether the CPU multiplies bfloat16 by itself.

    Where it does not, float32 is the fast format: a step of 16 sequences was three times as fast.
    """
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {"bf16"}  # not Linux: leave the choice to vLLM
    names = ("flags", "Features")
    return {flag for line in lines if line.startswith(names) for flag in line.split()}


def _info(engine: Any, config: Any, version: str, *, cpu: bool) -> EngineInfo:
    blocks = getattr(config.cache_config, "num_gpu_blocks", None) or 0
    block_size = getattr(config.cache_config, "block_size", None) or 0
    return EngineInfo(
        kind=EngineKind.VLLM,
        max_model_len=config.model_config.max_model_len,
        max_num_seqs=config.scheduler_config.max_num_seqs,
        max_num_batched_tokens=config.scheduler_config.max_num_batched_tokens,
        kv_tokens=blocks * block_size if blocks > 1 else 0,  # encoders keep one dummy block
        block_size=block_size,
        vocab_size=config.model_config.get_vocab_size(),
        async_scheduling=bool(config.scheduler_config.async_scheduling),
        kv_token_bytes=_kv_token_bytes(engine) if blocks > 1 else 0,
        graph_sizes=() if cpu else _graph_sizes(config),
        device="cpu" if cpu else "cuda",
        accelerator="" if cpu else _accelerator(),
        version=version,
    )


def _kv_token_bytes(engine: Any) -> int:
    """Of the cache as vLLM laid it out; 0 where this version does not show that."""
    layout = getattr(scheduler_of(engine), "kv_cache_config", None)
    groups = getattr(layout, "kv_cache_groups", ())
    return sum(
        len(group.layer_names) * group.kv_cache_spec.page_size_bytes
        // group.kv_cache_spec.block_size
        for group in groups
    )  # fmt: skip


def _graph_sizes(config: Any) -> tuple[int, ...]:
    compilation = config.compilation_config
    if getattr(getattr(compilation, "cudagraph_mode", None), "name", "NONE") == "NONE":
        return ()
    return tuple(sorted(compilation.cudagraph_capture_sizes or ()))


def _accelerator() -> str:
    import torch  # noqa: PLC0415

    return str(torch.cuda.get_device_name())
