"""Both clients against answers of our own: no network, no clock."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import anyserve
from anyserve import AsyncClient, CallError, Client, InvalidRequestError
from anyserve.client.asking import Ask, Settings
from anyserve.client.events import EventReader, Kind
from anyserve.errors import UsageError

Answer = Callable[[httpx.Request], httpx.Response]
SERVED = {
    "x-request-id": "ingress/1/7",
    "x-anyserve-replica": "h1",
    "x-anyserve-capability-served": "decode.heavy",
    "x-anyserve-hops": "2",
}


class Point(msgspec.Struct):
    x: int


def refusing(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"error": {"message": "no", "type": "x", "param": None, "code": code}}
    return httpx.Response(status, json=body, headers=headers)


def again(response: httpx.Response) -> httpx.Response:
    """A fresh one: an answer can be read once."""
    return httpx.Response(response.status_code, headers=response.headers, content=response.content)


def both(answer: Answer, use: Callable[[Any], Any], **options: Any) -> list[Any]:
    """What `use` gets of the plain client, and of the other one."""
    found = []
    with Client("http://x", transport=httpx.MockTransport(answer), **options) as client:
        found.append(_outcome(lambda: use(client)))

    async def run() -> Any:
        async with AsyncClient("http://x", transport=httpx.MockTransport(answer), **options) as one:
            made = use(one)
            if hasattr(made, "__aiter__"):
                return [item async for item in made]
            return await made

    found.append(_outcome(lambda: asyncio.run(run())))
    return [list(one) if hasattr(one, "__next__") else one for one in found]


def _outcome(run: Callable[[], Any]) -> Any:
    try:
        made = run()
        return (
            list(made)
            if hasattr(made, "__iter__") and not isinstance(made, list | dict | str)
            else made
        )
    except (CallError, InvalidRequestError) as error:
        return error


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait for no time; how long they would is tested below."""
    real = asyncio.sleep
    monkeypatch.setattr("anyserve.client.asynchronous.asyncio.sleep", lambda _s: real(0))
    monkeypatch.setattr("anyserve.client.synchronous.time.sleep", lambda _s: None)


def test_a_call_sends_its_payload_and_reads_a_typed_answer() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"x": 3})

    results = both(
        answer,
        lambda client: client.call(
            "rerank", {"q": 1}, result=Point, attributes={"model": "é"}, priority=-1, entry="s1",
            affinity="u1", timeout_s=2.0,
        ),
        api_key="key",
    )  # fmt: skip

    assert results == [Point(3), Point(3)]
    for request in seen:
        assert request.url == "http://x/v1/capabilities/rerank"
        assert json.loads(request.content) == {"q": 1}
        assert request.headers["authorization"] == "Bearer key"
        assert request.headers["x-anyserve-priority"] == "-1"
        assert request.headers["x-anyserve-entry"] == "s1"
        assert request.headers["x-anyserve-affinity"] == "u1"
        assert json.loads(request.headers["x-anyserve-attributes"]) == {"model": "é"}
        assert 1900 < int(request.headers["x-anyserve-timeout-ms"]) <= 2000


def test_a_reply_says_who_served() -> None:
    replies = both(
        lambda _: httpx.Response(200, json=1, headers=SERVED),
        lambda one: one.request("decode", "x"),
    )

    for reply in replies:
        assert (reply.result, reply.request_id, reply.replica) == (1, "ingress/1/7", "h1")
        assert (reply.capability, reply.hops) == ("decode.heavy", 2)


@pytest.mark.parametrize(
    ("response", "code", "retry_ms"),
    [
        (refusing(404, "unknown_capability"), "unknown_capability", None),
        (refusing(429, "queue_full", **{"retry-after-ms": "1500"}), "queue_full", 1500),
        (refusing(503, "no_replica", **{"retry-after": "2"}), "no_replica", 2000),
        (httpx.Response(502, text="<html>"), "bad_answer", None),
        (httpx.Response(200, text="no json"), "bad_answer", None),
        (httpx.Response(200, json={"x": "three"}), "bad_answer", None),
    ],
)
def test_an_error_has_its_code(response: httpx.Response, code: str, retry_ms: int | None) -> None:
    errors = both(
        lambda _: again(response), lambda one: one.call("a", 1, result=Point), max_retries=0
    )

    for error in errors:
        assert isinstance(error, CallError)
        assert (error.code, error.retry_after_ms) == (code, retry_ms)
        assert "a" in error.message


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (httpx.ConnectError("refused"), "unreachable"),
        (httpx.ConnectTimeout(""), "unreachable"),
        (httpx.ReadTimeout(""), "deadline_exceeded"),
        (httpx.ReadError("reset"), "connection_lost"),
        (httpx.RemoteProtocolError("gone"), "connection_lost"),
    ],
)
def test_what_goes_wrong_on_the_way_has_a_code_too(raised: Exception, code: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise raised

    for use in (lambda one: one.call("a"), lambda one: one.stream("a")):
        errors = both(answer, use, max_retries=0)
        assert [error.code for error in errors] == [code, code]


@pytest.mark.parametrize(
    ("code", "asked"),
    [("queue_full", 3), ("draining", 3), ("engine_error", 1), ("replica_lost", 1)],
)
def test_only_what_had_not_begun_is_asked_again(code: str, asked: int) -> None:
    for use in (lambda one: one.call("a"), lambda one: one.stream("a")):
        seen: list[int] = []

        def answer(_: httpx.Request, seen: list[int] = seen) -> httpx.Response:
            seen.append(1)
            return refusing(503, code)

        errors = both(answer, use, max_retries=2)
        assert [error.code for error in errors] == [code, code]
        assert len(seen) == 2 * asked


def test_a_second_try_may_succeed() -> None:
    seen: list[int] = []

    def answer(_: httpx.Request) -> httpx.Response:
        seen.append(1)
        return refusing(429, "queue_full") if len(seen) % 2 else httpx.Response(200, json="ok")

    assert both(answer, lambda one: one.call("a")) == ["ok", "ok"]


def test_the_server_says_how_long_to_wait_and_the_deadline_bounds_it() -> None:
    settings = Settings.of("http://x", None, 10.0, 5, {})
    now = [100.0]

    def ask() -> Ask:
        return Ask(settings, "a", None, {}, clock=lambda: now[0], chance=lambda: 0.0)

    assert ask().wait_before_retry(CallError("", code="queue_full", retry_after_ms=1500)) == 1.5
    assert ask().wait_before_retry(CallError("", code="queue_full", retry_after_ms=20_000)) is None
    growing = ask()
    waits = [growing.wait_before_retry(CallError("", code="no_replica")) for _ in range(6)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, None]
    late = ask()
    now[0] = 109.9
    assert late.wait_before_retry(CallError("", code="no_replica")) is None
    assert late.headers()["x-anyserve-timeout-ms"] == "100"


EVENTS = 'data: 1\n\n: keep\n\ndata: {"x":\ndata: 2}\n\ndata: [DONE]\n\n'


def stream_of(text: str) -> httpx.Response:
    head = {"content-type": "text/event-stream", **SERVED}
    return httpx.Response(200, text=text, headers=head)


def test_a_stream_gives_its_items() -> None:
    for items in both(lambda _: stream_of(EVENTS), lambda one: one.stream("count", 2)):
        assert items == [1, {"x": 2}]


def test_a_stream_knows_who_serves_it() -> None:
    transport = httpx.MockTransport(lambda _: stream_of(EVENTS))
    with Client("http://x", transport=transport) as client, client.stream("count") as stream:
        assert stream.reply is None
        assert next(iter(stream)) == 1
        assert stream.reply is not None
        assert stream.reply.replica == "h1"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (
            (
                'data: 1\n\nevent: error\n'
                'data: {"error": {"message": "m", "code": "worker_died"}}\n\n'
            ),
            "worker_died",
        ),
        ("data: 1\n\n", "connection_lost"),
        ('data: "one"\n\ndata: [DONE]\n\n', "bad_answer"),
    ],
)  # fmt: skip
def test_a_broken_stream_is_never_a_short_one(text: str, code: str) -> None:
    for error in both(lambda _: stream_of(text), lambda one: one.stream("count", item=int)):
        assert isinstance(error, CallError)
        assert error.code == code


def test_a_payload_that_json_cannot_say_is_not_sent() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise AssertionError

    for error in both(answer, lambda one: one.call("a", object())):
        assert isinstance(error, InvalidRequestError)


@pytest.mark.parametrize(
    ("url", "used"),
    [
        (None, "http://127.0.0.1:8000"),
        ("http://h:1/v1/", "http://h:1"),
        ("https://h/base", "https://h/base"),
    ],
)
def test_the_address(url: str | None, used: str) -> None:
    assert Settings.of(url, None, None, 0, {}).url == used


def test_the_environment_names_address_and_key() -> None:
    environ = {"ANYSERVE_URL": "http://there:9", "ANYSERVE_API_KEY": "k"}
    settings = Settings.of(None, None, None, 0, environ)

    assert (settings.url, settings.api_key) == ("http://there:9", "k")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"url": "ftp://x"}, "client_url"),
        ({"timeout_s": 0}, "client_timeout"),
        ({"max_retries": -1}, "client_retries"),
    ],
)
def test_arguments_that_make_no_sense(options: dict[str, Any], code: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(UsageError) as caught:
            kind(**options)
        assert caught.value.code == code


ITEMS = st.lists(st.one_of(st.integers(), st.text(), st.dictionaries(st.text(), st.integers())))


@given(ITEMS)
def test_any_items_come_back(items: list[Any]) -> None:
    reader = EventReader()
    text = "".join(f"data: {json.dumps(item)}\n\n" for item in items) + "data: [DONE]\n\n"

    events = [event for line in text.split("\n") for event in reader.take(line)]

    assert events[-1].kind is Kind.END
    assert [json.loads(event.data) for event in events[:-1]] == items


def test_importing_it_is_light() -> None:
    code = "import anyserve, sys; anyserve.Client('http://x'); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"httpx", "pydantic", "numpy", "grpc", "rich"} & set(loaded)
    assert {"Client", "AsyncClient"} <= set(anyserve.__all__)
