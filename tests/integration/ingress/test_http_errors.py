"""Failures in every protocol's words: codes, headers, broken streams, draining."""

from __future__ import annotations

import asyncio
import json

import pytest
from doors import (
    another_ingress,
    ask,
    chunks,
    connect,
    events_of,
    read_reply,
    request_bytes,
)
from live import LiveCluster

from anyserve.core.events import AttemptEnded, RequestOutcome, RequestQueued, WorkerChanged
from anyserve.runtime.supervisor import control

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(120)]

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        (CHAT, {"messages": []}, 400, "invalid_request", "messages"),
        (CHAT, {"messages": HI, "frobnicate": 1}, 400, "unsupported_parameter", "frobnicate"),
        (CHAT, {"messages": HI, "logprobs": True}, 400, "unsupported_parameter", "logprobs"),
        (CHAT, {"messages": HI, "top_logprobs": 2}, 400, "invalid_request", "top_logprobs"),
        (CHAT, {"messages": HI, "tools": [{}]}, 400, "unsupported_parameter", "tools"),
        (CHAT, {"messages": HI, "store": True}, 400, "unsupported_parameter", "store"),
        (CHAT, {"messages": HI, "logit_bias": {"x": 1}}, 400, "invalid_request", "logit_bias"),
        (CHAT, {"messages": HI, "stream_options": {}}, 400, "invalid_request", "stream_options"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400,
         "unsupported_parameter", "messages[0].content[0].type"),
        (CHAT, {"messages": HI, "model": "embedding"}, 400, "wrong_task", "model"),
        (CHAT, {"messages": HI, "max_tokens": 100_000}, 400, "too_long", None),
        (COMPLETIONS, {}, 400, "invalid_request", "prompt"),
        (COMPLETIONS, {"prompt": ""}, 400, "invalid_request", "prompt"),
        (COMPLETIONS, {"prompt": [[]]}, 400, "invalid_request", "prompt"),
        (COMPLETIONS, {"prompt": [-1]}, 400, "invalid_request", "prompt"),
        (COMPLETIONS, {"prompt": ["a", 1]}, 400, "invalid_request", "prompt"),
        (COMPLETIONS, {"prompt": ["a"] * 129}, 400, "invalid_request", "prompt"),
        (COMPLETIONS, {"prompt": "x", "echo": True}, 400, "unsupported_parameter", "echo"),
        (COMPLETIONS, {"prompt": "x", "best_of": 3}, 400, "unsupported_parameter", "best_of"),
        (COMPLETIONS, {"prompt": "x", "n": 0}, 400, "invalid_request", "n"),
        (COMPLETIONS, b"{", 400, "invalid_request", None),
        (COMPLETIONS, b"[" * 100_000, 400, "invalid_request", None),
        (EMBEDDINGS, {"input": "x", "dimensions": 3}, 400, "unsupported_parameter", "dimensions"),
        (EMBEDDINGS, {"input": "x", "model": "decode"}, 400, "wrong_task", "model"),
        ("/v1/nothing", {}, 404, "not_found", None),
    ],
)  # fmt: skip
async def test_mistake_is_answered_with_its_code_and_the_parameter(
    urls: dict[str, str], path: str, body: object, status: int, code: str, param: str | None
) -> None:
    reply = await ask(urls[""], path, body)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (status, code, param)
    assert reply.error["message"]
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"x-anyserve-capability": "nobody"}, 404, "unknown_capability"),
        ({"x-anyserve-entry": "nobody"}, 400, "unknown_entry"),
        ({"x-anyserve-priority": "high"}, 400, "invalid_request"),
        ({"x-anyserve-timeout-ms": "0"}, 400, "invalid_request"),
        ({"content-type": "text/plain"}, 415, "unsupported_media_type"),
    ],
)
async def test_headers_are_checked(
    urls: dict[str, str], headers: dict[str, str], status: int, code: str
) -> None:
    reply = await ask(urls[""], COMPLETIONS, {"prompt": "x"}, headers)
    assert (reply.status, reply.error["code"]) == (status, code)


async def test_wrong_method_is_told_the_right_one(urls: dict[str, str]) -> None:
    reply = await ask(urls[""], COMPLETIONS, method="PUT")
    assert (reply.status, reply.headers["allow"]) == (405, "post")
    assert (await ask(urls[""], "/v1/models", method="DELETE")).headers["allow"] == "get"


async def test_capability_comes_from_the_header_before_the_model_before_the_default(
    urls: dict[str, str],
) -> None:
    body = {"prompt": "x", "max_tokens": 1}
    for more, headers, served in (
        ({}, {}, "decode"),
        ({"model": "decode.heavy"}, {}, "decode.heavy"),
        ({"model": "decode.heavy"}, {"x-anyserve-capability": "decode"}, "decode"),
    ):
        reply = await ask(urls[""], COMPLETIONS, {**body, **more}, headers)
        assert reply.headers["x-anyserve-capability-served"] == served


async def test_deadline_in_the_queue_is_contention_and_while_it_runs_a_timeout(
    served: LiveCluster, urls: dict[str, str]
) -> None:
    mark = served.watcher.mark()
    long = {"model": "tight", "prompt": "x", "max_tokens": 1500, "stream": True}
    blockers = [await connect(urls[""]) for _ in range(2)]
    for reader, writer in blockers:
        writer.write(request_bytes(COMPLETIONS, long))
        await reader.readuntil(b"data: ")
    hasty = {"x-anyserve-timeout-ms": "300"}
    waiting = await ask(urls[""], COMPLETIONS, {"model": "decode.heavy", "prompt": "x"}, hasty)
    assert (waiting.status, waiting.error["code"]) == (429, "deadline_exceeded")
    assert "retry-after" in waiting.headers
    for _, writer in blockers:
        writer.close()
    await served.watcher.until(
        lambda: len(served.watcher.find(AttemptEnded, since=mark, status="cancelled")) >= 2
    )
    body = {"model": "decode.heavy", "prompt": "x", "max_tokens": 1000}
    running = await ask(urls[""], COMPLETIONS, body, hasty)
    assert (running.status, running.error["code"]) == (504, "deadline_exceeded")
    streamed = await ask(urls[""], COMPLETIONS, {**body, "stream": True}, hasty)
    events = events_of(streamed.body)
    assert streamed.status == 200
    assert "[DONE]" not in events
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == "error"
    assert json.loads(events[-1])["error"]["code"] == "deadline_exceeded"
    several = {**body, "prompt": ["xx", "yy"], "stream": True}
    events = events_of((await ask(urls[""], COMPLETIONS, several, hasty)).body)
    ends = [json.loads(event)["choices"][0] for event in events[-3:-1]]
    assert sorted(end["index"] for end in ends) == [0, 1]
    assert {end["finish_reason"] for end in ends} == {"error"}
    assert json.loads(events[-1])["error"]["code"] == "deadline_exceeded"


async def test_first_token_that_does_not_come_in_time_ends_the_request(
    served: LiveCluster, urls: dict[str, str]
) -> None:
    mark = served.watcher.mark()
    long = {"model": "tight", "prompt": "x", "max_tokens": 1500, "stream": True}
    blockers = [await connect(urls[""]) for _ in range(2)]
    for reader, writer in blockers:
        writer.write(request_bytes(COMPLETIONS, long))
        await reader.readuntil(b"data: ")
    late = await ask(
        urls[""], COMPLETIONS, {"model": "decode.heavy", "prompt": "x"}, {"x-slo-ttft-ms": "200"}
    )
    assert (late.status, late.error["code"]) == (429, "deadline_exceeded")
    for _, writer in blockers:
        writer.close()
    await served.watcher.until(
        lambda: len(served.watcher.find(AttemptEnded, since=mark, status="cancelled")) >= 2
    )
    body = {"model": "decode.heavy", "prompt": "x", "max_tokens": 60}
    enough = await ask(urls[""], COMPLETIONS, body, {"x-slo-ttft-ms": "20000"})
    assert enough.status == 200


@pytest.mark.parametrize("entry", ["", "s1"], ids=["at the scheduler", "delegated from s1"])
async def test_client_that_leaves_while_it_waits_is_forgotten(
    served: LiveCluster, urls: dict[str, str], entry: str
) -> None:
    mark = served.watcher.mark()
    long = {"model": "tight", "prompt": "x", "max_tokens": 1500, "stream": True}
    blockers = [await connect(urls[""]) for _ in range(2)]
    for reader, writer in blockers:
        writer.write(request_bytes(COMPLETIONS, long))
        await reader.readuntil(b"data: ")
    _, waiting = await connect(urls[entry])
    waiting.write(request_bytes(COMPLETIONS, {"model": "decode.heavy", "prompt": "x"}))
    queued = await served.watcher.event(RequestQueued, since=mark, capability="decode.heavy")
    waiting.close()
    outcome = await served.watcher.event(RequestOutcome, since=mark, id=queued.id)
    assert (outcome.outcome, outcome.code) == ("cancelled", "client_cancelled")
    for _, writer in blockers:
        writer.close()
    await served.watcher.until(
        lambda: len(served.watcher.find(AttemptEnded, since=mark, status="cancelled")) >= 2
    )


async def test_draining_ingress_finishes_its_streams_and_takes_no_new_ones(
    served: LiveCluster,
) -> None:
    async with another_ingress(served, drain_ms=30_000) as (ingress, url):
        assert (await ask(url, "/ready")).json()["status"] == "ready"
        reader, writer = await connect(url)
        body = {"model": "decode.heavy", "prompt": "abc", "max_tokens": 60, "stream": True}
        writer.write(request_bytes(COMPLETIONS, body))
        await reader.readuntil(b"\r\n\r\n")
        draining = asyncio.create_task(ingress.drain())
        await asyncio.sleep(0)
        ready, health, live = [await ask(url, path) for path in ("/ready", "/health", "/live")]
        assert (ready.status, health.status, live.status) == (503, 503, 200)
        assert ready.json() == {"status": "draining", "open_requests": 1}
        refused = await ask(url, COMPLETIONS, {"model": "decode", "prompt": "x"})
        assert (refused.status, refused.error["code"]) == (503, "draining")
        assert "retry-after" in refused.headers
        events = events_of(b"".join([part async for part in chunks(reader)]))
        assert events[-1] == "[DONE]"
        assert len(events) == 60 + 2
        await draining
        writer.close()


async def test_worker_that_dies_under_a_stream_breaks_it_with_an_error(
    served: LiveCluster, urls: dict[str, str]
) -> None:
    mark = served.watcher.mark()
    reader, writer = await connect(urls[""])
    body = {"model": "tight", "prompt": "abc", "max_tokens": 1500, "stream": True}
    writer.write(request_bytes(COMPLETIONS, body))
    await reader.readuntil(b"data: ")
    await served.ask(control.Kill(target="worker", id="h1"))
    events = events_of(b"".join([part async for part in chunks(reader, begun=True)]))
    assert "[DONE]" not in events
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == "error"
    error = json.loads(events[-1])["error"]
    assert (error["code"], error["type"]) == ("worker_died", "service_unavailable_error")
    await served.watcher.event(WorkerChanged, since=mark, replica="h1", state="ready")


async def test_capability_that_nobody_offers_now_is_no_capacity(urls: dict[str, str]) -> None:
    reply = await ask(urls[""], COMPLETIONS, {"model": "vision", "prompt": "x"})
    assert (reply.status, reply.error["code"]) == (503, "no_replica")
    assert "retry-after" in reply.headers


async def test_head_is_answered_without_a_body(urls: dict[str, str]) -> None:
    reader, writer = await connect(urls[""])
    writer.write(request_bytes("/live", method="HEAD"))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    writer.write(request_bytes("/live"))
    assert (await read_reply(reader)).status == 200
    writer.close()
