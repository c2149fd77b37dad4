"""What an engine is: the protocol that a worker's step loop drives, and its data.

An engine is synchronous and lives in one thread. The worker submits requests, calls `step()` while
`has_work`, and gets what every running request produced in that step. The structs here also travel
between replica and worker (`runtime/worker/ipc.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from anyserve.core.engine.profile import EngineProfile
from anyserve.errors import AnyServeError


class EngineKind(StrEnum):
    """The engines that this package carries."""

    VLLM = "vllm"
    MODEL = "model"
    ECHO = "echo"
    NONE = "none"
    """No engine: an app's handlers serve everything."""


class Task(StrEnum):
    """What a request asks of a model."""

    GENERATE = "generate"
    EMBED = "embed"
    HANDLE = "handle"
    """Nothing of an engine: a handler's request."""


class FinishReason(StrEnum):
    """Why a choice of a request ended."""

    STOP = "stop"
    LENGTH = "length"
    ERROR = "error"
    CANCELLED = "cancelled"


class EngineRequestError(AnyServeError):
    """One request cannot be served by this engine; others are not touched."""


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything a worker needs to build its engine."""

    kind: EngineKind
    model: str = ""
    """Folder or hub id that the engine loads; empty where the engine needs none."""
    name: str = ""
    """What the scenario calls the model; the name of its step-time profile."""
    task: Task = Task.GENERATE
    max_model_len: int | None = None
    max_num_seqs: int = 16
    max_num_batched_tokens: int | None = None
    kv_cache_gib: float = 1.0
    """Size of the KV cache on CPU, and of the `model` engine's imaginary one."""
    gpus: float = 0.0
    """GPUs of this engine; a fraction is a share of one GPU's memory."""
    cuda_visible_devices: str | None = None
    """The GPUs it may use, as nvidia-smi counts; None leaves that to the environment."""
    gpu_memory_share: float | None = None
    """Part of each GPU's whole memory that it may fill; None is vLLM's own default."""
    gpu_turn: str | None = None
    """A file that engines on one GPU lock while they load, so that they do it one by one."""
    threads: int = 1
    """Threads of one CPU engine."""
    seed: int = 0
    dtype: str = "auto"
    """Number format of weights and activations; `auto` takes what is fast on the machine."""
    profile: EngineProfile | None = None
    """What the `model` engine imitates."""
    step_time: str = ""
    """A user's step-time model `pkg.mod:Class` in place of the profile's."""
    step_scale: float = 1.0
    """How many times as long as that one says steps take; a profile is scaled already."""
    prefill_scale: float = 1.0
    """And what prompts add to them, once more."""
    plugin_dir: str | None = None
    """Where such a class may lie: the scenario's directory."""
    step_interval_ms: float = 0.0
    """Pause before each step of the `echo` engine."""
    tokens_per_step: int = 1
    """Tokens per request and step of the `echo` engine."""
    args: dict[str, Any] = {}
    """Further arguments for vLLM's EngineArgs, by their names there."""


class Guide(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A constraint on the output; exactly one field is set."""

    json_schema: dict[str, Any] | None = None
    json_object: bool = False
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How tokens are chosen, and when to stop. Names and meanings are OpenAI's and vLLM's."""

    max_tokens: int = 16
    """Upper bound on generated tokens, those of earlier attempts (`resume_ids`) included."""
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] = []
    stop_token_ids: list[int] = []
    ignore_eos: bool = False
    n: int = 1
    logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    guide: Guide | None = None


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt to serve a request."""

    key: str
    """Names the attempt; unique among the attempts that an engine holds."""
    prompt_ids: list[int]
    task: Task = Task.GENERATE
    sampling: Sampling = Sampling()
    priority: int = 0
    """Lower is served first."""
    arrival_s: float | None = None
    """When the request was first offered, on the wall clock of vLLM's bookkeeping."""
    resume_ids: list[int] = []
    """Tokens that an earlier attempt generated; the stream goes on after them."""


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """Log probability of a chosen token and of the likeliest ones."""

    token_id: int
    logprob: float
    top: list[tuple[int, float]] = []


class Delta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one choice of one request got in one step."""

    key: str
    choice: int = 0
    first_index: int = 0
    """Place of `token_ids[0]` in the choice's whole stream (earlier attempts included)."""
    token_ids: list[int] = []
    finish: FinishReason | None = None
    done: bool = False
    """No more deltas of this key follow (the last choice ended)."""
    stop: str | int | None = None
    """The stop string or stop token that ended the choice."""
    logprobs: list[TokenLogprob] | None = None
    embedding: list[float] | None = None
    cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache (with the first delta)."""
    scheduled_ns: int = 0
    """When the engine first scheduled the request (with the first delta; monotonic clock)."""
    error: str | None = None
    error_code: str | None = None


class EngineStats(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """State of the engine after a step. Counters grow for the life of the engine."""

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    """Share of KV blocks in use, 0 to 1."""
    prefix_queries: int = 0
    """Tokens looked up in the prefix cache so far."""
    prefix_hits: int = 0
    preemptions: int = 0


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a loaded engine can hold."""

    kind: EngineKind
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_tokens: int
    """Tokens that fit into the KV cache; 0 where there is none."""
    block_size: int = 0
    vocab_size: int = 0
    async_scheduling: bool = False
    """Whether step k+1 is scheduled before step k's tokens are known."""
    kv_token_bytes: int = 0
    """Size of one token in the KV cache; 0: unknown, or there is none."""
    graph_sizes: tuple[int, ...] = ()
    """Batch sizes that CUDA graphs were captured for, ascending; a batch is padded to the next."""
    device: str = "none"
    accelerator: str = ""
    """Its name, where the engine computes on one."""
    version: str = ""
    """Version of the inference library."""


class StepOutput(msgspec.Struct, frozen=True):
    """What one step produced for all requests, and the state after it."""

    deltas: list[Delta]
    stats: EngineStats


Report = Callable[[str, float], None]
"""Takes the stage of loading, in words, and how much of it is done (0 to 1)."""


class Engine(Protocol):
    """Computes tokens or vectors, many requests at a time. All calls from one thread."""

    def start(self, report: Report) -> EngineInfo:
        """Load everything; return once the first request could be served."""
        ...

    def submit(self, request: EngineRequest) -> None:
        """Take a request in; it is computed by later steps.

        Raises:
            EngineRequestError: This request can never be served here.
        """
        ...

    def cancel(self, key: str) -> None:
        """Forget a request; unknown keys are ignored, no delta follows."""
        ...

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do."""
        ...

    def step(self) -> StepOutput:
        """Compute one step for the requests that the engine chose. May block for its time."""
        ...

    def stats(self) -> EngineStats:
        """State of the engine now."""
        ...

    def stop(self) -> None:
        """Free what the engine holds."""
        ...


def check_request(
    request: EngineRequest, task: Task, max_model_len: int, vocab_size: int = 0
) -> None:
    """Refuse what no engine of this kind can serve. `vocab_size` 0: any token id goes.

    Raises:
        EngineRequestError: Wrong task, empty prompt, tokens the model does not have, or a prompt
            (with what is resumed) that leaves no room in the context.
    """
    if request.task is not task:
        raise EngineRequestError(
            f"This engine does {task}, the request asks for {request.task}.", code="wrong_task"
        )
    length = len(request.prompt_ids) + len(request.resume_ids)
    if length == 0:
        raise EngineRequestError("The prompt is empty.", code="empty_prompt")
    limit = max_model_len if task is Task.EMBED else max_model_len - 1
    if length > limit:
        raise EngineRequestError(
            f"{length} prompt tokens, but this engine's context of {max_model_len} takes {limit}.",
            code="too_long",
        )
    ids = (*request.prompt_ids, *request.resume_ids)
    if min(ids) < 0 or (vocab_size and max(ids) >= vocab_size):
        raise EngineRequestError("The prompt has token ids the model lacks.", code="bad_token")
    if request.resume_ids and (request.sampling.n > 1 or request.sampling.guide is not None):
        raise EngineRequestError(
            "A request with several choices or a guide cannot be resumed.", code="not_resumable"
        )


def room_left(request: EngineRequest, max_model_len: int) -> int:
    """Tokens that may still be generated: bounded by `max_tokens` and by the context."""
    length = len(request.prompt_ids) + len(request.resume_ids)
    wanted = request.sampling.max_tokens - len(request.resume_ids)
    return max(0, min(wanted, max_model_len - length))


def spent(request: EngineRequest) -> Delta:
    """The only delta of a resumed request that has nothing left to generate."""
    return Delta(
        key=request.key,
        first_index=len(request.resume_ids),
        finish=FinishReason.LENGTH,
        done=True,
    )
