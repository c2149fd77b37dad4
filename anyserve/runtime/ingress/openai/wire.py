"""The requests of OpenAI's API as we take them. A field that is not here is refused by its name.

Ranges stand in the types, so that decoding checks them and the OpenAPI document shows them. Fields
from vLLM's own server stand below OpenAI's.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from anyserve.runtime.ingress.meanings import RefusedError, invalid, unsupported

MAX_CHOICES: Final = 128
MAX_STOPS: Final = 16
_INT64: Final = 2**63 - 1

Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(gt=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Count = Annotated[int, Meta(ge=1, le=10_000_000)]
Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
Seed = Annotated[int, Meta(ge=-_INT64 - 1, le=_INT64)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
StopText = Annotated[str, Meta(min_length=1, max_length=1000)]
Stops = Annotated[list[StopText], Meta(max_length=MAX_STOPS)]
Texts = Annotated[str, Meta(min_length=1)] | Annotated[list[Any], Meta(min_length=1)]
Name = Annotated[str, Meta(max_length=512)]
Priority = Annotated[int, Meta(ge=-1000, le=1000)]


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What else a stream tells."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class JsonSchema(msgspec.Struct, frozen=True, kw_only=True):
    """A named schema of `response_format`."""

    name: str = ""
    description: str | None = None
    schema: dict[str, Any] = {}
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """vLLM's own way to say what the answer must look like; exactly one field."""

    json: dict[str, Any] | None = None
    json_object: bool | None = None
    regex: Annotated[str, Meta(min_length=1, max_length=10_000)] | None = None
    choice: Annotated[list[str], Meta(min_length=1, max_length=1000)] | None = None
    grammar: Annotated[str, Meta(min_length=1, max_length=100_000)] | None = None


class Generate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What chats and completions have in common. None: the default."""

    model: Name | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    n: Choices | None = None
    stop: StopText | Stops | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    user: str | None = None
    """Accepted, and of no effect."""

    top_k: Annotated[int, Meta(ge=-1, le=10_000_000)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=256)] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    priority: Priority | None = None
    structured_outputs: StructuredOutputs | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation. What else clients put into it is passed over."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Any] | None = None
    name: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None


class ChatRequest(Generate, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=10_000)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[str] | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: Annotated[str, Meta(max_length=512)] | None = None


class CompletionRequest(Generate, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/completions`. `prompt`: a text or token ids, or several of one kind."""

    prompt: Texts
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    best_of: Choices | None = None
    echo: bool | None = None
    suffix: str | None = None


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/embeddings`. `input`: a text or token ids, or several of one kind."""

    input: Texts
    model: Name | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None
    priority: Priority | None = None


R = TypeVar("R", bound=msgspec.Struct)
_UNKNOWN: Final = "Object contains unknown field `"
_MISSING: Final = "Object missing required field `"


def decode(decoder: msgspec.json.Decoder[R], body: bytes) -> R:
    """Read a request.

    Raises:
        RefusedError: it is not JSON, has a field of a wrong type or range, or one that we do not
            serve; the error names the field.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"the body is not JSON: {error}") from None


def _explained(text: str) -> RefusedError:
    what, _, place = text.partition(" - at `")
    path = place.rstrip("`").removeprefix("$").removeprefix(".")
    if what.startswith(_UNKNOWN):
        name = what.removeprefix(_UNKNOWN).rstrip("`")
        return unsupported(f"{path}.{name}" if path else name)
    if what.startswith(_MISSING):
        name = what.removeprefix(_MISSING).rstrip("`")
        return invalid(f"'{name}' is missing", f"{path}.{name}" if path else name)
    where = f" at {path}" if path else ""
    return invalid(f"{what[:1].lower()}{what[1:]}{where}", path or None)
