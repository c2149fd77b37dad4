"""What a client may send, hold and delay: bare sockets against a door with narrow limits."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest
from doors import (
    WAIT_S,
    another_ingress,
    ask,
    chunks,
    connect,
    events_of,
    read_reply,
    request_bytes,
)
from live import LiveCluster

from anyserve.core.events import AttemptEnded, RequestOutcome
from anyserve.core.spec import IngressLimits
from anyserve.errors import StartError

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(120)]

COMPLETIONS = "/v1/completions"


async def test_head_and_body_are_bounded(served: LiveCluster) -> None:
    limits = IngressLimits(header_bytes=2048, body_bytes=4096)
    async with another_ingress(served, limits=limits) as (_, url):
        large = await ask(url, "/live", headers={"x-filler": "a" * 3000})
        assert (large.status, large.error["code"]) == (431, "headers_too_large")
        endless_reader, endless = await connect(url)
        endless.write(b"GET /live HTTP/1.1\r\nx-endless: " + b"a" * 5000)
        assert (await read_reply(endless_reader)).status == 431
        assert await endless_reader.read() == b""  # and closed
        body = {"model": "decode", "prompt": "x" * 5000}
        whole = await ask(url, COMPLETIONS, body)
        assert (whole.status, whole.error["code"]) == (413, "body_too_large")
        reader, writer = await connect(url)
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n"
            b"content-type: application/json\r\n\r\n"
        )
        for _ in range(5):
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert (await read_reply(reader)).status == 413
        assert (await ask(url, COMPLETIONS, {"model": "decode", "prompt": "x"})).status == 200


async def test_slow_senders_are_told_and_cut_off(served: LiveCluster) -> None:
    limits = IngressLimits(header_ms=200, body_ms=200)
    async with another_ingress(served, limits=limits) as (_, url):
        silent, _w = await connect(url)
        slow_head, writer = await connect(url)
        writer.write(b"GET /live HTTP/1.1\r\nhost:")
        slow_body, body_writer = await connect(url)
        body_writer.write(request_bytes(COMPLETIONS, {"prompt": "x"})[:-5])
        for reader in (slow_head, slow_body):
            reply = await read_reply(reader)
            assert (reply.status, reply.error["code"]) == (408, "request_too_slow")
            assert await reader.read() == b""
        assert await silent.read() == b""  # it never said a word, so it is told none
        assert (await ask(url, "/live")).status == 200


async def test_connections_are_bounded(served: LiveCluster) -> None:
    async with another_ingress(served, limits=IngressLimits(connections=2)) as (_, url):
        first, first_writer = await connect(url)
        second, second_writer = await connect(url)
        for reader, writer in ((first, first_writer), (second, second_writer)):
            writer.write(request_bytes("/live"))
            assert (await read_reply(reader)).status == 200
        third, _ = await connect(url)
        refused = await read_reply(third)
        assert (refused.status, refused.error["code"]) == (503, "too_many_connections")
        assert "retry-after" in refused.headers
        first_writer.close()
        await first_writer.wait_closed()
        second_writer.write(request_bytes("/live"))
        assert (await read_reply(second)).status == 200


async def test_open_requests_are_bounded(served: LiveCluster) -> None:
    async with another_ingress(served, limits=IngressLimits(open_requests=1)) as (_, url):
        reader, writer = await connect(url)
        body = {"model": "decode.heavy", "prompt": "x", "max_tokens": 1000, "stream": True}
        writer.write(request_bytes(COMPLETIONS, body))
        await reader.readuntil(b"data: ")
        refused = await ask(url, COMPLETIONS, {"model": "decode", "prompt": "x"})
        assert (refused.status, refused.error["code"]) == (429, "ingress_full")
        assert int(refused.headers["retry-after"]) >= 1
        writer.close()


async def test_reader_that_stalls_is_cut_off_and_stalls_nobody(served: LiveCluster) -> None:
    mark = served.watcher.mark()
    limits = IngressLimits(unread_frames=16, stall_ms=60_000)
    async with another_ingress(served, limits=limits) as (_, url):
        reader, writer = await connect(url, limit=1024)  # so that the socket is read no further
        sizes = {"max_tokens": 1900, "n": 100, "stream": True}
        body = {"model": "decode.heavy", "prompt": "a stalled reader", **sizes}
        writer.write(request_bytes(COMPLETIONS, body))
        head = await reader.readuntil(b"\r\n\r\n")
        request_id = next(
            line.split(b": ")[1].decode()
            for line in head.split(b"\r\n")
            if line.startswith(b"x-request-id")
        )
        beside = await ask(url, COMPLETIONS, {"model": "decode", "prompt": "beside"})
        assert beside.status == 200
        outcome = await served.watcher.event(RequestOutcome, since=mark, id=request_id)
        assert outcome.outcome == "cancelled"
        ended = await served.watcher.event(AttemptEnded, since=mark, id=request_id)
        assert ended.n_tokens < 1900 * 100
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
            # What was sent is still there, then it breaks off without a proper end.
            await asyncio.wait_for(_read_to_the_end(reader), WAIT_S)


async def _read_to_the_end(reader: asyncio.StreamReader) -> None:
    async for _ in chunks(reader):
        pass


async def test_nonsense_is_answered_and_closed(served: LiveCluster) -> None:
    async with another_ingress(served) as (_, url):
        for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
            reader, writer = await connect(url)
            writer.write(nonsense)
            reply = await read_reply(reader)
            assert (reply.status, reply.error["code"]) == (400, "malformed_http")
            assert await reader.read() == b""
            writer.close()


async def test_pipelined_requests_are_answered_in_order(served: LiveCluster) -> None:
    async with another_ingress(served) as (_, url):
        reader, writer = await connect(url)
        first = request_bytes(COMPLETIONS, {"model": "decode", "prompt": "abcdef", "max_tokens": 3})
        writer.write(first + request_bytes("/live"))
        assert (await read_reply(reader)).json()["choices"][0]["text"] == "abc"
        assert (await read_reply(reader)).json()["status"] == "ready"
        writer.close()


async def test_keys_open_the_door_and_probes_need_none(served: LiveCluster, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nsecret-one\n\nsecret-two\n")
    file.chmod(0o600)
    environ = {"DOOR_KEYS": "from-env, other"}
    settings = {"api_keys_file": str(file), "api_keys_env": "DOOR_KEYS"}
    async with another_ingress(served, environ, **settings) as (_, url):
        assert (await ask(url, "/v1/models")).error["code"] == "missing_api_key"
        for wrong in ("secret-onf", "secret", "", "Bearer", "# ours"):
            reply = await ask(url, "/v1/models", headers={"authorization": f"Bearer {wrong}"})
            assert reply.status == 401
            assert reply.headers["www-authenticate"] == "bearer"
        for key in ("secret-one", "secret-two", "from-env", "other"):
            reply = await ask(url, "/v1/models", headers={"authorization": f"Bearer {key}"})
            assert reply.status == 200
        assert (await ask(url, "/v1/models", headers={"x-api-key": "other"})).status == 200
        for probe in ("/live", "/ready", "/health", "/openapi.json"):
            assert (await ask(url, probe)).status == 200
        assert (await ask(url, "/metrics")).status == 401


async def test_door_that_was_meant_to_be_locked_does_not_open_without_keys(
    served: LiveCluster,
) -> None:
    with pytest.raises(StartError, match="NOT_THERE holds no API key"):
        async with another_ingress(served, {}, api_keys_env="NOT_THERE"):
            pass


async def test_certificate_makes_it_https(served: LiveCluster, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
    command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    settings = {"tls_certificate": str(certificate), "tls_key": str(key)}
    async with another_ingress(served, {}, **settings) as (_, url):
        assert url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(certificate))
        reader, writer = await connect(url, ssl=trusting)
        body = {"model": "decode", "prompt": "secret", "max_tokens": 6, "stream": True}
        writer.write(request_bytes(COMPLETIONS, body))
        reply = await read_reply(reader)
        assert events_of(reply.body)[-1] == "[DONE]"
        writer.close()
        plain, plain_writer = await connect(url)
        plain_writer.write(request_bytes("/live"))
        assert await plain.read() == b""
        plain_writer.close()


async def test_whole_stream_has_its_proper_end(urls: dict[str, str]) -> None:
    reader, writer = await connect(urls[""])
    body = {"model": "decode", "prompt": "abc", "max_tokens": 3, "stream": True}
    writer.write(request_bytes(COMPLETIONS, body))
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"text/event-stream" in head
    parts = b"".join([part async for part in chunks(reader)])
    assert events_of(parts)[-1] == "[DONE]"
    writer.close()
