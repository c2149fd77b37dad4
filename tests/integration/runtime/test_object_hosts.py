"""Objects between processes of one host, and between hosts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import uvicorn

from anyserve.core.objects import ObjRef
from anyserve.core.spec import ObjectsSpec
from anyserve.errors import ObjectError
from anyserve.runtime.bus.address import Credential
from anyserve.runtime.handlers.words import ObjectsConfig, Payload
from anyserve.runtime.objects.directory import new_object_directory, remove_object_directory
from anyserve.runtime.objects.plane import ObjectPlane
from anyserve.runtime.objects.serve import ObjectServer
from anyserve.runtime.objects.store import ObjectStore
from anyserve.runtime.objects.token import object_token, sealed

MIB = 1 << 20
TOKEN = object_token(Credential("origin", "a password"))

PUTTER = """
import sys
from pathlib import Path
from typing import Any
from anyserve.core.spec import ObjectsSpec
from anyserve.errors import ObjectError
from anyserve.runtime.objects.store import ObjectStore

store = ObjectStore(Path(sys.argv[1]), ObjectsSpec(limit_bytes=8 << 20))
data = sys.argv[2].encode() * (1 << 20)
for _ in range(60):
    ref = store.put(data)
    assert store.used_bytes() <= 8 << 20
    try:
        assert bytes(store.get(ref)[:3]) == data[:3]
    except ObjectError:
        pass  # the other one was quick
"""
HANGER = """
import sys, time
from pathlib import Path
from typing import Any
from anyserve.runtime.objects import store as module
from anyserve.runtime.objects.store import ObjectStore

def hang(fd, data):
    print("writing", flush=True)
    time.sleep(600)

module._copy = hang
ObjectStore(Path(sys.argv[1])).put(b"x" * (1 << 20))
"""


@pytest.fixture
def directories() -> Iterator[tuple[Path, Path]]:
    made = new_object_directory(), new_object_directory()
    yield made
    for one in made:
        remove_object_directory(one)


def test_two_processes_that_put_at_once_keep_the_bound(directories: tuple[Path, Path]) -> None:
    here, _ = directories
    putters = [
        subprocess.Popen([sys.executable, "-c", PUTTER, str(here), fill]) for fill in ("a", "b")
    ]

    assert [putter.wait(50) for putter in putters] == [0, 0]
    store = ObjectStore(here, ObjectsSpec(limit_bytes=8 * MIB))
    assert 6 * MIB < store.used_bytes() <= 8 * MIB


def test_a_writer_that_is_killed_leaves_nothing_for_long(directories: tuple[Path, Path]) -> None:
    here, _ = directories
    writer = subprocess.Popen(
        [sys.executable, "-c", HANGER, str(here)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    store = ObjectStore(here)
    assert store.used_bytes() > MIB
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()

    assert store.used_bytes() == 0
    assert [path.name for path in here.iterdir()] == ["lock"]


@pytest.fixture
def far(directories: tuple[Path, Path]) -> Iterator[tuple[ObjectStore, str]]:
    """Another host's store, and where it serves copies."""
    store = ObjectStore(directories[1], token=TOKEN)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        server = uvicorn.Server(
            uvicorn.Config(ObjectServer(store, TOKEN), log_level="error", lifespan="off")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        store.announce(url)
        yield store, url
        server.should_exit = True
        thread.join()


def plane(directory: Path, token: str = TOKEN) -> ObjectPlane:
    return ObjectPlane.of(ObjectsConfig(directory=str(directory), token=token))


async def test_an_object_of_another_host_is_copied_once(
    directories: tuple[Path, Path], far: tuple[ObjectStore, str]
) -> None:
    store, url = far
    array = np.random.default_rng(0).standard_normal(300_000)
    ref = store.put(array)
    near = plane(directories[0])

    assert ref.url == url
    assert np.array_equal(await near.get(ref), array)
    assert near.store.has(ref)
    remove_object_directory(directories[1])  # the second time nobody is asked
    assert np.array_equal(await near.get(ref, verify=True), array)
    payload = await plane(directories[0]).shrink(Payload(b'"' + b"x" * 300_000 + b'"'))
    assert payload.ref is not None
    assert len(await near.expand(payload)) == 300_002


@pytest.mark.parametrize(
    ("token", "change", "code", "said"),
    [
        ("wrong", {}, "object_unreachable", "not made by this cluster"),
        ("", {}, "object_unreachable", "not made by this cluster"),
        (TOKEN, {"seal": "0" * 32}, "object_unreachable", "not made by this cluster"),
        (TOKEN, {"id": "0" * 32}, "object_gone", "is gone"),
        (TOKEN, {"digest": "0" * 64}, "object_damaged", "not what its reference says"),
        (TOKEN, {"url": ""}, "object_unreachable", "serves no copies"),
        (TOKEN, {"url": "file:///etc"}, "object_unreachable", "serves no copies"),
        (TOKEN, {"url": "http://127.0.0.1:1"}, "object_unreachable", "refused"),
    ],
)
async def test_what_cannot_be_copied_says_why(
    directories: tuple[Path, Path],
    far: tuple[ObjectStore, str],
    token: str,
    change: dict[str, str],
    code: str,
    said: str,
) -> None:
    ref = far[0].put(b"payload")
    wanted = ObjRef(**{name: getattr(ref, name) for name in ref.__struct_fields__} | change)
    if "seal" not in change:
        wanted = sealed(wanted, TOKEN)
    with pytest.raises(ObjectError) as caught:
        await plane(directories[0], token).get(wanted)

    assert (caught.value.code, said in caught.value.message) == (code, True), caught.value.message
    assert ObjectStore(directories[0]).used_bytes() == 0


async def test_the_server_says_what_it_has_and_no_more(far: tuple[ObjectStore, str]) -> None:
    store, url = far
    ref = store.put(b"payload")
    host, _, port = url.removeprefix("http://").partition(":")
    answers = {}
    for method, path in [
        ("HEAD", f"/objects/{ref.id}"),
        ("GET", "/objects/../lock"),
        ("POST", f"/objects/{ref.id}"),
    ]:
        reader, writer = await asyncio.open_connection(host, int(port))
        request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        writer.write(f"{request}Connection: close\r\n\r\n".encode())
        answers[method] = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()

    assert " 200 " in answers["HEAD"]
    assert "content-length: 7" in answers["HEAD"]
    assert answers["HEAD"].endswith("\r\n\r\n")
    assert " 404 " in answers["GET"]
    assert " 405 " in answers["POST"]


async def test_a_client_cannot_send_a_worker_to_an_address_of_its_own(
    directories: tuple[Path, Path], far: tuple[ObjectStore, str]
) -> None:
    asked: list[ObjRef] = []

    def fetch(ref: ObjRef, _token: str) -> bytes:
        asked.append(ref)
        return b""

    ref = far[0].put(b"payload")
    near = ObjectPlane(ObjectStore(directories[0], token=TOKEN), TOKEN, fetch)
    lies: list[dict[str, Any]] = [{"url": "http://evil"}, {"home": "x"}, {"size": 1}, {"seal": ""}]
    for lie in lies:
        with pytest.raises(ObjectError, match="not made by this cluster"):
            await near.get(msgspec.structs.replace(ref, **lie))
    assert asked == []
