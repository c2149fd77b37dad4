"""vLLM's own scheduler and KV cache manager, driven without a model."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from engine_traces import IN_FLIGHT, Decision, Trace, arrivals_by_step
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

_LLAMA = """{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16,
"intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
"num_key_value_heads": 1, "vocab_size": 64, "max_position_embeddings": 4096,
"torch_dtype": "float32"}"""
_ADAPTIVE: Final = "long_prefill_token_threshold_adaptive"
HAS_FAIR_CAP: Final = _ADAPTIVE in {field.name for field in dataclasses.fields(SchedulerConfig)}
"""Whether the installed vLLM caps long prompts only while others are there: not before 0.31."""


def playable(trace: Trace) -> Trace:
    """The trace, without the cap on long prompts where an older vLLM has another one."""
    if HAS_FAIR_CAP or not trace.limits.long_prefill_token_threshold:
        return trace
    limits = msgspec.structs.replace(
        trace.limits, long_prefill_token_threshold=0, long_prefill_adaptive=False
    )
    return msgspec.structs.replace(trace, limits=limits)


@functools.lru_cache(maxsize=64)
def _model_config(max_model_len: int, *, pooling: bool) -> ModelConfig:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(_LLAMA)
        return ModelConfig(
            model=folder,
            skip_tokenizer_init=True,
            max_model_len=max_model_len,
            runner="pooling" if pooling else "generate",
        )


def _vllm_config(trace: Trace) -> VllmConfig:
    limits = trace.limits
    pooling = any(one.max_tokens == 0 for one in trace.requests)
    scheduler = SchedulerConfig(
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_model_len=trace.max_model_len,
        enable_chunked_prefill=limits.chunked_prefill,
        long_prefill_token_threshold=limits.long_prefill_token_threshold,
        scheduler_reserve_full_isl=limits.reserve_full_sequence,
        watermark=limits.watermark,
        policy="priority" if limits.priorities else "fcfs",
        is_encoder_decoder=False,
        async_scheduling=limits.async_scheduling,
        **({_ADAPTIVE: limits.long_prefill_adaptive} if HAS_FAIR_CAP else {}),
    )
    cache = CacheConfig(block_size=limits.block_size, enable_prefix_caching=limits.prefix_caching)
    cache.num_gpu_blocks = limits.kv_blocks
    config = VllmConfig(
        model_config=_model_config(trace.max_model_len, pooling=pooling),
        cache_config=cache,
        scheduler_config=scheduler,
        device_config=DeviceConfig("cpu"),
    )
    # What the configuration corrected for the model's sake is set back: the rules are what we test.
    config.scheduler_config.enable_chunked_prefill = limits.chunked_prefill
    config.scheduler_config.max_num_batched_tokens = limits.max_num_batched_tokens
    config.cache_config.enable_prefix_caching = limits.prefix_caching
    config.cache_config.num_gpu_blocks = limits.kv_blocks
    config.cache_config.block_size = limits.block_size
    return config


class VllmScheduler:
    """Plays a trace on vLLM's scheduler. `two_in_flight`: as its asynchronous loop does."""

    def __init__(self, trace: Trace) -> None:
        init_none_hash(sha256)
        self._trace = trace
        limits = trace.limits
        spec = FullAttentionSpec(
            block_size=limits.block_size, num_kv_heads=1, head_size=16, dtype=torch.float32
        )
        kv_cache = KVCacheConfig(
            num_blocks=limits.kv_blocks,
            kv_cache_tensors=[],
            kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
        )
        config = _vllm_config(trace)
        kind = AsyncScheduler if limits.async_scheduling else Scheduler
        self._scheduler: Any = kind(
            vllm_config=config,
            kv_cache_config=kv_cache,
            structured_output_manager=StructuredOutputManager(config),
            block_size=limits.block_size,
            log_stats=True,
        )
        self._hasher = get_request_block_hasher(limits.block_size, sha256)
        self._requests: dict[str, Any] = {}
        self._in_flight: list[tuple[Any, Any]] = []
        self._given: dict[str, int] = {}
        """Tokens made up for each request so far, those in flight included."""
        self.prefix = (0, 0)

    def play(self, *, most: int = 2000) -> list[Decision]:
        """All decisions until nothing is left to do."""
        decisions: list[Decision] = []
        events = arrivals_by_step(self._trace)
        while len(decisions) < most:
            for number, comes in events.get(len(decisions), ()):
                self._obey(number, comes=comes)
            busy = self._scheduler.running or self._scheduler.waiting or self._in_flight
            if not busy and len(decisions) > self._trace.last_step():
                break
            decisions.append(self._step())
        return decisions

    def _obey(self, number: int, *, comes: bool) -> None:
        if comes:
            request = self._requests[_name(number)] = self._request(number)
            self._scheduler.add_request(request)
        else:
            self._scheduler.finish_requests(_name(number), RequestStatus.FINISHED_ABORTED)

    def _request(self, number: int) -> Any:
        one = self._trace.requests[number]
        tokens = [token(name, place) for name, length in one.prompt for place in range(length)]
        sampling = pooling = None
        if one.max_tokens:
            sampling = SamplingParams(max_tokens=one.max_tokens, ignore_eos=True)
        else:
            pooling = PoolingParams(task="embed")
        return Request(
            request_id=_name(number),
            prompt_token_ids=tokens,
            sampling_params=sampling,
            pooling_params=pooling,
            arrival_time=float(one.arrival),
            priority=one.priority,
            block_hasher=self._hasher,
        )

    def _step(self) -> Decision:
        scheduler = self._scheduler
        pool = scheduler.kv_cache_manager.block_pool
        output = scheduler.schedule()
        sampled = self._sampled(output)
        empty = not output.total_num_scheduled_tokens
        free = pool.get_num_free_blocks()
        preempted = sorted(int(name) for name in output.preempted_req_ids or ())
        if empty:
            self._update(output, sampled)
        else:
            self._in_flight.append((output, sampled))
        most = IN_FLIGHT if self._trace.limits.async_scheduling else 1
        if self._in_flight and (empty or len(self._in_flight) == most):
            self._update(*self._in_flight.pop(0))
        return Decision(
            {int(name): tokens for name, tokens in output.num_scheduled_tokens.items()},
            preempted,
            free,
            pool.get_num_free_blocks(),
            *scheduler.get_request_counts(),
        )

    def _update(self, output: Any, sampled: Any) -> None:
        for outputs in self._scheduler.update_from_output(output, sampled).values():
            if outputs.scheduler_stats is not None:
                prefix = outputs.scheduler_stats.prefix_cache_stats
                self.prefix = (self.prefix[0] + prefix.queries, self.prefix[1] + prefix.hits)

    def _sampled(self, output: Any) -> Any:
        names = list(output.num_scheduled_tokens)
        sampled: list[list[int]] = []
        pooled: list[Any] = []
        for name in names:
            request = self._requests[name]
            ready = not request.is_prefill_chunk  # as of the step that was just scheduled
            one = self._trace.requests[int(name)]
            pooled.append(torch.zeros(1) if ready and not one.max_tokens else None)
            place = self._given.get(name, 0)
            self._given[name] = place + bool(ready)
            text = one.output or 100_000 + int(name)
            sampled.append([token(text, place)] if ready and one.max_tokens else [])
        return ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: index for index, name in enumerate(names)},
            sampled_token_ids=sampled,
            pooler_output=pooled if any(one is not None for one in pooled) else None,
        )


def _name(number: int) -> str:
    return f"{number:06}"  # vLLM compares them as text


def token(name: int, place: int) -> int:
    """The token of a named text at a place."""
    return name * 100_000 + place
