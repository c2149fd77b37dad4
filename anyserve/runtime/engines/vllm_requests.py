"""Requests in vLLM's words, and vLLM's outputs in ours."""

from __future__ import annotations

from typing import Any

from anyserve.runtime.engines.base import (
    Delta,
    EngineRequest,
    FinishReason,
    Guide,
    Sampling,
    Task,
    TokenLogprob,
)

_FINISH = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "abort": FinishReason.CANCELLED,
}
_NS_PER_S = 1e9


def prompt(request: EngineRequest) -> Any:
    """The prompt as vLLM takes it: token ids, rendered already."""
    from vllm.inputs import tokens_input  # noqa: PLC0415

    return tokens_input([*request.prompt_ids, *request.resume_ids])


def parameters(request: EngineRequest, room: int) -> Any:
    """Sampling or pooling parameters; `room` is how many tokens may still come."""
    if request.task is Task.EMBED:
        from vllm import PoolingParams  # noqa: PLC0415

        return PoolingParams(task="embed")
    from vllm import SamplingParams  # noqa: PLC0415
    from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

    given = request.sampling
    return SamplingParams(
        n=given.n,
        max_tokens=room,
        min_tokens=min(room, max(0, given.min_tokens - len(request.resume_ids))),
        temperature=given.temperature,
        top_p=given.top_p,
        top_k=given.top_k,
        min_p=given.min_p,
        seed=given.seed,
        stop=given.stop or None,
        stop_token_ids=given.stop_token_ids or None,
        ignore_eos=given.ignore_eos,
        logprobs=given.logprobs,
        presence_penalty=given.presence_penalty,
        frequency_penalty=given.frequency_penalty,
        repetition_penalty=given.repetition_penalty,
        logit_bias=given.logit_bias or None,
        structured_outputs=_structured(given),
        detokenize=bool(given.stop),  # text is made by the origin; only stop strings need it here
        output_kind=RequestOutputKind.DELTA,
    )


def refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises about a request that it does not take."""
    from vllm import exceptions  # noqa: PLC0415

    # Since 0.27 there is a tree of their own; before, all were subclasses of ValueError.
    client_error = getattr(exceptions, "VLLMClientError", ValueError)
    return (client_error, ValueError, TypeError, NotImplementedError)


def _structured(sampling: Sampling) -> Any:
    guide = sampling.guide
    if guide is None:
        return None
    from vllm.sampling_params import StructuredOutputsParams  # noqa: PLC0415

    return StructuredOutputsParams(**_guide_fields(guide))


def _guide_fields(guide: Guide) -> dict[str, Any]:
    fields = {
        "json": guide.json_schema,
        "json_object": guide.json_object or None,
        "regex": guide.regex,
        "choice": guide.choice,
        "grammar": guide.grammar,
    }
    return {name: value for name, value in fields.items() if value is not None}


class Stream:
    """Turns the outputs of one request into deltas, with the place of each token."""

    def __init__(self, request: EngineRequest) -> None:
        self._key = request.key
        self._offset = len(request.resume_ids)
        self._sent: dict[int, int] = {}
        self._first = True

    def fold(self, output: Any) -> list[Delta]:
        """Deltas of one vLLM output (one per choice that got something)."""
        if not hasattr(output.outputs, "__iter__"):
            return [self._pooled(output)]
        deltas = [self._choice(choice) for choice in output.outputs]
        if deltas and self._first:
            self._first = False
            self._mark_first(deltas[0], output)
        if deltas and output.finished:
            deltas[-1].done = True
        return deltas

    def _choice(self, choice: Any) -> Delta:
        token_ids = list(choice.token_ids)
        sent = self._sent.get(choice.index, self._offset)
        self._sent[choice.index] = sent + len(token_ids)
        finish = choice.finish_reason
        return Delta(
            key=self._key,
            choice=choice.index,
            first_index=sent,
            token_ids=token_ids,
            finish=None if finish is None else _FINISH.get(finish, FinishReason.ERROR),
            stop=choice.stop_reason,
            logprobs=_logprobs(token_ids, choice.logprobs),
            error=None if finish in {None, *_FINISH} else f"vLLM ended the request: {finish}",
        )

    def _pooled(self, output: Any) -> Delta:
        error = getattr(output, "error", None)  # since 0.32
        if error is not None:
            return Delta(
                key=self._key,
                finish=FinishReason.ERROR,
                done=True,
                error=error.message,
                error_code=error.code,
            )
        delta = Delta(
            key=self._key,
            finish=FinishReason.STOP,
            done=True,
            embedding=output.outputs.data.float().tolist(),
        )
        self._mark_first(delta, output)
        return delta

    @staticmethod
    def _mark_first(delta: Delta, output: Any) -> None:
        delta.cached_tokens = output.num_cached_tokens or 0
        metrics = getattr(output, "metrics", None)
        delta.scheduled_ns = int(getattr(metrics, "scheduled_ts", 0.0) * _NS_PER_S)


def _logprobs(token_ids: list[int], logprobs: Any) -> list[TokenLogprob] | None:
    if logprobs is None:
        return None
    return [
        TokenLogprob(
            token_id,
            place[token_id].logprob,
            [(other, entry.logprob) for other, entry in place.items()],
        )
        for token_id, place in zip(token_ids, logprobs, strict=False)
    ]
