from __future__ import annotations

import asyncio
import json
import os

import pytest

from anyserve.errors import ProtocolError
from anyserve.runtime.logs import ErrorReport
from anyserve.runtime.supervisor.progress import (
    AnyProgress,
    Exit,
    Notice,
    ProgressPipe,
    Ready,
    Step,
    StepState,
    TrafficEnded,
    decode_progress,
    encode_progress,
)

LINES: list[AnyProgress] = [
    Step(name="broker", state=StepState.OK, detail="mqtt://127.0.0.1:1883", t=0.25),
    Ready(cluster="c", broker="mqtt://127.0.0.1:1883", control="/tmp/x/control", t=4.0),
    Notice(text="replica s1 ended (SIGKILL), starts again in 0.5 s"),
    TrafficEnded(kept=True),
    Exit(code=3, reason="no", error=ErrorReport(code="c", message="m\nn", hint="h", exit_code=3)),
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: type(line).__name__)
def test_every_line_reads_back(line: AnyProgress) -> None:
    encoded = encode_progress(line)
    assert encoded.count(b"\n") == 1
    assert decode_progress(encoded) == line


def test_a_line_is_what_the_design_says() -> None:
    assert json.loads(encode_progress(LINES[0])) == {
        "kind": "step",
        "t": 0.25,
        "name": "broker",
        "state": "ok",
        "detail": "mqtt://127.0.0.1:1883",
    }


def test_foreign_line_is_refused() -> None:
    with pytest.raises(ProtocolError):
        decode_progress(b'{"kind": "tea"}\n')


async def test_slow_reader_gets_everything_and_nobody_blocks() -> None:
    read_fd, write_fd = os.pipe()
    pipe = ProgressPipe(write_fd)
    wanted = [Notice(text=f"{n} " + "x" * 500) for n in range(400)]  # over the pipe's 64 KiB
    for line in wanted:
        pipe.write(line)
    reading = asyncio.create_task(asyncio.to_thread(_read_lines, read_fd, len(wanted)))
    await pipe.drain(10)
    os.close(write_fd)
    assert [decode_progress(line) for line in await reading] == wanted
    os.close(read_fd)


def _read_lines(fd: int, count: int) -> list[bytes]:
    data = b""
    while data.count(b"\n") < count:
        data += os.read(fd, 65536)
    return data.splitlines()


async def test_reader_that_is_gone_is_forgotten() -> None:
    read_fd, write_fd = os.pipe()
    pipe = ProgressPipe(write_fd)
    os.close(read_fd)
    pipe.write(Notice(text="one"))
    pipe.write(Notice(text="two"))
    await pipe.drain(10)
    os.close(write_fd)


async def test_reader_that_never_reads_costs_a_bounded_amount() -> None:
    read_fd, write_fd = os.pipe()
    pipe = ProgressPipe(write_fd)
    for _ in range(40):
        pipe.write(Notice(text="x" * 100_000))
    assert len(pipe._waiting) <= 1024 * 1024
    os.close(read_fd)
    await pipe.drain(10)
    os.close(write_fd)
