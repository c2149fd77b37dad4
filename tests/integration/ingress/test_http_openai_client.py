"""The `openai` package, unchanged, against a served cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio
from live import LiveCluster
from openai import AsyncOpenAI, AsyncStream
from openai.types import Completion

from anyserve.core.events import AttemptEnded, RequestOutcome

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(120)]

HELLO = "Hello, world. This is a text that the echo engine says again."


@pytest_asyncio.fixture(loop_scope="package")
async def client(urls: dict[str, str]) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{urls['']}/v1", api_key="none", max_retries=0) as made:
        yield made


async def test_chat_is_answered_whole(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="decode", messages=[{"role": "user", "content": HELLO}], max_tokens=12
    )
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", HELLO[:12])
    assert choice.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(HELLO)
    assert (answer.usage.completion_tokens, answer.usage.total_tokens) == (12, len(HELLO) + 12)


async def test_chat_is_streamed_with_its_usage(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="decode",
        messages=[{"role": "user", "content": HELLO}],
        max_completion_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == HELLO[:12]
    assert sum(1 for text in texts if text) > 1
    assert [chunk.choices[0].delta.role for chunk in chunks if chunk.choices][:2] == [
        "assistant",
        None,
    ]
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert (reasons[-1], set(reasons[:-1])) == ("length", {None})
    last = chunks[-1].usage
    assert last is not None
    assert (last.prompt_tokens, last.completion_tokens) == (len(HELLO), 12)
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


async def test_several_prompts_and_choices_keep_their_places(client: AsyncOpenAI) -> None:
    prompts = ["first prompt", "second prompt"]
    whole = await client.completions.create(model="decode", prompt=prompts, n=2, max_tokens=5)
    assert [one.index for one in whole.choices] == [0, 1, 2, 3]
    assert [one.text for one in whole.choices] == ["first", "irst ", "secon", "econd"]
    stream = await client.completions.create(
        model="decode", prompt=prompts, n=2, max_tokens=5, stream=True
    )
    texts = dict.fromkeys(range(4), "")
    ends: dict[int, str | None] = {}
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            if choice.finish_reason is not None:
                ends[choice.index] = choice.finish_reason
    assert list(texts.values()) == [one.text for one in whole.choices]
    assert ends == dict.fromkeys(range(4), "length")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_stop_string_across_chunks_ends_the_text_and_the_engine(
    client: AsyncOpenAI, served: LiveCluster, stream: bool
) -> None:
    mark = served.watcher.mark()
    asked = client.completions.with_raw_response.create(
        model="decode", prompt="one two three STOP four", max_tokens=200, stop=["STOP", "five"],
        stream=stream,
    )  # fmt: skip
    raw = await asked
    if stream:
        parsed = raw.parse()
        assert isinstance(parsed, AsyncStream)
        texts = [(one.choices[0].text, one.choices[0].finish_reason) async for one in parsed]
        text, reason = "".join(part for part, _ in texts), texts[-1][1]
    else:
        whole = raw.parse()
        assert isinstance(whole, Completion)
        choice = whole.choices[0]
        text, reason = choice.text, choice.finish_reason
    assert (text, reason) == ("one two three ", "stop")
    request_id = raw.headers["x-request-id"]
    ended = await served.watcher.event(AttemptEnded, since=mark, id=request_id)
    assert (ended.status, ended.n_tokens < 200) == ("cancelled", True)
    outcome = await served.watcher.event(RequestOutcome, since=mark, id=request_id)
    assert (outcome.outcome, outcome.finish) == ("completed", "stop")


async def test_characters_of_several_tokens_come_whole(client: AsyncOpenAI) -> None:
    text = "Grüße, 世界 🌍!"
    stream = await client.completions.create(
        model="decode", prompt=text, max_tokens=len(text.encode()), stream=True
    )
    parts = [chunk.choices[0].text async for chunk in stream]
    assert "".join(parts) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in part for part in parts)


async def test_embeddings_are_the_same_in_both_formats(client: AsyncOpenAI) -> None:
    inputs = ["a text", "another text"]
    floats = await client.embeddings.create(
        model="embedding", input=inputs, encoding_format="float"
    )
    packed = await client.embeddings.create(model="embedding", input=inputs)  # asks for base64
    assert [one.index for one in floats.data] == [0, 1]
    assert floats.data[0].embedding != floats.data[1].embedding
    for exact, single in zip(floats.data, packed.data, strict=True):
        assert single.embedding == pytest.approx(exact.embedding, abs=1e-6)
    assert floats.usage.prompt_tokens == sum(map(len, inputs))
    ids = await client.embeddings.create(model="embedding", input=list(b"a text"))
    assert ids.data[0].embedding == pytest.approx(floats.data[0].embedding, abs=1e-6)


async def test_models_are_listed_with_what_they_stand_for(client: AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]
    assert names == ["decode", "decode.heavy", "tight", "embedding", "quick", "vision"]
    one = await client.models.retrieve("decode.heavy")
    assert (one.id, one.owned_by) == ("decode.heavy", "anyserve")
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-9")


async def test_request_that_s1_cannot_serve_is_answered_by_h1_through_the_entry_asked_for(
    client: AsyncOpenAI, urls: dict[str, str]
) -> None:
    for base, entry in (("", {"x-anyserve-entry": "s1"}), ("s1", {})):
        other = client.with_options(base_url=f"{urls[base]}/v1")
        raw = await other.completions.with_raw_response.create(
            model="decode", prompt="p" * 300, max_tokens=4, extra_headers=entry
        )
        headers = raw.headers
        assert headers["x-anyserve-replica"] == "h1"
        assert headers["x-anyserve-capability-asked"] == "decode"
        assert headers["x-anyserve-capability-served"] == "decode.heavy"
        assert headers["x-anyserve-hops"] == "2"
        assert raw.parse().choices[0].text == "pppp"


async def test_any_request_may_enter_at_any_replica(
    client: AsyncOpenAI, urls: dict[str, str]
) -> None:
    straight = await client.embeddings.create(model="embedding", input="a text")
    for replica in ("s1", "h1", "e1", "q1"):
        other = client.with_options(base_url=f"{urls[replica]}/v1")
        embedded = await other.embeddings.create(model="embedding", input="a text")
        assert embedded.data[0].embedding == straight.data[0].embedding
        raw = await other.completions.with_raw_response.create(
            model="decode.heavy", prompt="abc", max_tokens=3
        )
        assert raw.headers["x-anyserve-replica"] == "h1"
        assert raw.headers["x-anyserve-hops"] == ("1" if replica == "h1" else "2")
        answer = raw.parse()
        assert isinstance(answer, Completion)
        assert answer.choices[0].text == "abc"


async def test_errors_are_those_that_the_client_knows(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.completions.create(model="gpt-9", prompt="x")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as bad:
        await client.completions.create(model="decode", prompt="x", temperature=9)
    assert (bad.value.code, bad.value.param) == ("invalid_request", "temperature")
    with pytest.raises(openai.BadRequestError) as unserved:
        await client.chat.completions.create(
            model="decode",
            messages=[{"role": "user", "content": "x"}],
            response_format={"type": "json_object"},
        )
    assert (unserved.value.code, unserved.value.param) == (
        "unsupported_parameter",
        "response_format",
    )
    with pytest.raises(openai.BadRequestError) as long:
        await client.completions.create(model="decode", prompt="x" * 3000)
    assert long.value.code == "too_long"


async def test_full_queue_is_a_rate_limit_with_a_time_to_come_back(
    client: AsyncOpenAI, served: LiveCluster
) -> None:
    async def long() -> str:
        answer = await client.completions.create(
            model="tight", prompt="slow", max_tokens=60, timeout=60
        )
        return answer.choices[0].text

    crowd = await asyncio.gather(*(long() for _ in range(12)), return_exceptions=True)
    refused = [one for one in crowd if isinstance(one, openai.RateLimitError)]
    assert refused
    assert len([one for one in crowd if isinstance(one, str)]) == 12 - len(refused)
    for one in refused:
        assert one.code == "queue_full"
        assert int(one.response.headers["retry-after"]) >= 1
        assert int(one.response.headers["retry-after-ms"]) >= 1


async def test_client_that_leaves_a_stream_stops_the_engine(
    client: AsyncOpenAI, served: LiveCluster
) -> None:
    mark = served.watcher.mark()
    stream = await client.completions.create(
        model="decode.heavy", prompt="long", max_tokens=1500, stream=True
    )
    request_id = stream.response.headers["x-request-id"]
    await anext(aiter(stream))
    await stream.close()
    ended = await served.watcher.event(AttemptEnded, since=mark, id=request_id)
    assert (ended.status, ended.n_tokens < 1500) == ("cancelled", True)
    outcome = await served.watcher.event(RequestOutcome, since=mark, id=request_id)
    assert (outcome.outcome, outcome.code) == ("cancelled", "client_cancelled")


async def test_synchronous_client_works_too(urls: dict[str, str]) -> None:
    def ask() -> str:
        with openai.OpenAI(base_url=f"{urls['']}/v1", api_key="none") as client:
            stream = client.chat.completions.create(
                model="decode",
                messages=[{"role": "user", "content": HELLO}],
                max_tokens=6,
                stream=True,
            )
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert await asyncio.to_thread(ask) == HELLO[:6]
