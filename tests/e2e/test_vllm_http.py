"""The `openai` package against real vLLM: a chat model and an embedding model behind the door."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import openai
import pytest
import pytest_asyncio
from live import LiveCluster, replica
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from anyserve import AsyncClient
from anyserve.core.spec import CapabilitySpec, ClusterSpec, EngineSpec, IngressSpec, ModelRoute
from anyserve.runtime.supervisor import control

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
]

QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]


def spec() -> ClusterSpec:
    chat = EngineSpec(kind="vllm", model="smollm2-135m", max_model_len=512, max_num_seqs=8)
    embed = EngineSpec(kind="vllm", model="minilm", task="embed", max_model_len=256)
    return ClusterSpec(
        name=f"t-{uuid.uuid4().hex[:8]}",
        capabilities=(CapabilitySpec(name="decode"), CapabilitySpec(name="embedding")),
        replicas=(
            replica("s1", "decode", max_tokens=512, engine=chat, concurrency=8),
            replica("e1", "embedding", max_tokens=256, engine=embed),
        ),
        ingress=IngressSpec(
            http_port=0, grpc_port=0, models={"my-chat": ModelRoute(capability="decode")}
        ),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors(vllm_zygote: Path) -> AsyncIterator[control.DoorStatus]:
    del vllm_zygote  # skips where there is no vLLM
    cluster = await LiveCluster(spec()).up(ready_s=180)
    status = msgspec.convert(await cluster.ask(control.Status()), control.ClusterStatus)
    yield status.doors[0]
    await _end(cluster)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(doors: control.DoorStatus) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{doors.http}/v1", api_key="none", max_retries=0) as made:
        yield made


async def _end(cluster: LiveCluster) -> None:
    """As `close`, but for what vLLM itself leaves in the temporary directory."""
    try:
        await cluster.leave()
        cluster.process.stop()
        ended = await cluster.exit()
        assert (ended.code, ended.error, cluster.processes()) == (143, None, [])
        assert cluster.bugs() == []
        cluster.check_log()
    finally:
        await cluster.abandon()


async def chat(client: AsyncOpenAI, **more: object) -> openai.types.chat.ChatCompletion:
    asked = {"model": "smollm2-135m", "messages": QUESTION, "max_tokens": 24, "temperature": 0}
    answer = await client.chat.completions.create(**{**asked, **more})  # type: ignore[call-overload]
    assert isinstance(answer, openai.types.chat.ChatCompletion)
    return answer


async def test_capital_of_france(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(
        model="smollm2-135m", prompt="The capital of France is", max_tokens=8, temperature=0
    )
    assert answer.choices[0].text.startswith(" Paris")


async def test_chat_is_the_same_whole_and_streamed(client: AsyncOpenAI) -> None:
    whole = await chat(client)
    text = whole.choices[0].message.content or ""
    assert "Paris" in text
    stream = await client.chat.completions.create(
        model="my-chat",
        messages=QUESTION,
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    parts = [one.choices[0].delta.content or "" for one in chunks if one.choices]
    assert "".join(parts) == text
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len([part for part in parts if part]) > 3


async def test_log_probabilities_belong_to_the_tokens_of_the_text(client: AsyncOpenAI) -> None:
    answer = await chat(client, logprobs=True, top_logprobs=3, max_tokens=8)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    tokens = logprobs.content or []
    assert len(tokens) == 8
    text = "".join(one.token for one in tokens).removesuffix("<|im_end|>")
    assert text.strip() == answer.choices[0].message.content
    for one in tokens:
        assert one.token == one.top_logprobs[0].token  # greedy
        likely = [other.logprob for other in one.top_logprobs]
        assert all(a >= b for a, b in pairwise(likely))
        assert sum(map(math.exp, likely)) <= 1.0001


async def test_stop_string_is_found_by_the_engine_and_not_shown(client: AsyncOpenAI) -> None:
    asked = {"model": "smollm2-135m", "max_tokens": 40, "temperature": 0, "stop": ["ris", "Rome"]}
    answer = await client.completions.create(prompt="The capital of France is", **asked)  # type: ignore[call-overload]
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (" Pa", "stop")
    assert answer.usage.completion_tokens == 1


async def test_answer_follows_a_schema(client: AsyncOpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 12}},
        "required": ["capital"],
        "additionalProperties": False,
    }
    format_ = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    answer = await chat(client, response_format=format_, max_tokens=60)
    found = json.loads(answer.choices[0].message.content or "")
    assert list(found) == ["capital"]
    chosen = await chat(client, extra_body={"structured_outputs": {"choice": ["Rome", "Oslo"]}})
    assert chosen.choices[0].message.content in {"Rome", "Oslo"}


async def test_seed_repeats_and_choices_differ(client: AsyncOpenAI) -> None:
    hot = {"temperature": 1.5, "seed": 7, "n": 3, "max_tokens": 12}
    first, again = await chat(client, **hot), await chat(client, **hot)
    texts = [one.message.content for one in first.choices]
    assert [one.message.content for one in again.choices] == texts
    assert len(set(texts)) > 1


async def test_forbidden_token_does_not_come(client: AsyncOpenAI) -> None:
    answer = await chat(client, logprobs=True, top_logprobs=0, max_tokens=1)
    raw = await client.completions.create(
        model="smollm2-135m", prompt="The capital of France is", max_tokens=1, temperature=0
    )
    biased = await client.completions.create(
        model="smollm2-135m",
        prompt="The capital of France is",
        max_tokens=1,
        temperature=0,
        logit_bias={str(token): -100 for token in range(7000, 8000)},
    )
    assert answer.choices[0].message.content
    assert raw.choices[0].text == " Paris"
    assert biased.choices[0].text != " Paris"


async def test_what_the_model_cannot_do_is_refused_by_name(client: AsyncOpenAI) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    with pytest.raises(openai.BadRequestError) as refused:
        await chat(client, tools=[tool])
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "tools")


async def test_embeddings_tell_near_from_far(client: AsyncOpenAI) -> None:
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Stocks fell on Monday."]
    answer = await client.embeddings.create(model="minilm", input=texts)
    cat, kitten, stocks = (one.embedding for one in answer.data)
    assert len(cat) == 384
    assert _cosine(cat, kitten) > _cosine(cat, stocks) + 0.2
    assert answer.usage.prompt_tokens > len(texts) * 4


def _cosine(one: list[float], other: list[float]) -> float:
    dot = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return dot / (math.hypot(*one) * math.hypot(*other))


async def test_tritons_client_gets_the_same_over_grpc(
    client: AsyncOpenAI, doors: control.DoorStatus
) -> None:
    prompt = "The capital of France is"
    over_http = await client.completions.create(
        model="smollm2-135m", prompt=prompt, max_tokens=8, temperature=0
    )
    given = InferInput("text_input", [1], "BYTES")
    given.set_data_from_numpy(np.array([prompt.encode()], dtype=np.object_))
    async with InferenceServerClient(doors.grpc) as triton:
        options = {"max_tokens": 8, "temperature": "0"}
        text = await triton.infer("smollm2-135m", [given], parameters=options)
        vector = (await triton.infer("minilm", [given])).as_numpy("embedding")

    assert text.as_numpy("text_output")[0].decode() == over_http.choices[0].text
    embedded = await client.embeddings.create(model="minilm", input=prompt)
    assert vector.tolist() == pytest.approx(embedded.data[0].embedding, abs=1e-3)
    assert float(np.linalg.norm(vector)) == pytest.approx(1.0, abs=1e-3)


async def test_our_own_client_streams_what_the_others_read(
    client: AsyncOpenAI, doors: control.DoorStatus
) -> None:
    prompt = "The capital of France is"
    whole = await client.completions.create(
        model="smollm2-135m", prompt=prompt, max_tokens=8, temperature=0
    )
    asked = {"prompt": prompt, "max_tokens": 8, "temperature": 0}
    async with AsyncClient(doors.http) as ours:
        pieces = [piece async for piece in ours.stream("decode", asked)]
        answer = await ours.call("decode", asked)

    assert "".join(piece["text"] for piece in pieces) == whole.choices[0].text == answer["text"]
    assert len(pieces) > 3
