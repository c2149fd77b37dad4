from __future__ import annotations

import socket

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyserve.errors import ProtocolError
from anyserve.runtime.engines.base import (
    Delta,
    EngineConfig,
    EngineInfo,
    EngineKind,
    EngineRequest,
    EngineStats,
    FinishReason,
    Guide,
    Sampling,
    TokenLogprob,
)
from anyserve.runtime.worker import ipc

COMMANDS: list[ipc.Command] = [
    ipc.Start(EngineConfig(kind=EngineKind.VLLM, model="m", args={"dtype": "float32"})),
    ipc.Submit(
        EngineRequest(
            key="r/1",
            prompt_ids=[1, 2],
            resume_ids=[3],
            sampling=Sampling(stop=["\n"], guide=Guide(choice=["a"])),
        )
    ),
    ipc.Cancel("r/1"),
    ipc.Slow(2.5),
    ipc.Ping(7),
    ipc.Stop(),
]
REPORTS: list[ipc.Report] = [
    ipc.Hello(12),
    ipc.Loading("weights", 0.5),
    ipc.Ready(
        EngineInfo(
            kind=EngineKind.ECHO,
            max_model_len=8,
            max_num_seqs=1,
            max_num_batched_tokens=8,
            kv_tokens=0,
        ),
        12.5,
    ),
    ipc.StepFrame(
        3,
        10,
        20,
        [
            Delta(
                key="r/1",
                token_ids=[5],
                finish=FinishReason.STOP,
                done=True,
                stop="\n",
                logprobs=[TokenLogprob(5, -0.5, [(5, -0.5), (6, -1.0)])],
            )
        ],
        EngineStats(running=1),
        [ipc.Intake("r/1", 8, 9)],
    ),
    ipc.Cancelled(["r/1"]),
    ipc.Failed("r/1", "too long", "too_long"),
    ipc.Heartbeat(5, None, 0),
    ipc.Fatal("no", "start_failed", "try again"),
    ipc.Pong(7),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: type(one).__name__)
def test_a_command_survives_the_way(command: ipc.Command) -> None:
    (payload,) = ipc.FrameBuffer().feed(ipc.encode_frame(command))

    assert ipc.decode_command(payload) == command


@pytest.mark.parametrize("report", REPORTS, ids=lambda one: type(one).__name__)
def test_a_report_survives_the_way(report: ipc.Report) -> None:
    (payload,) = ipc.FrameBuffer().feed(ipc.encode_frame(report))

    assert ipc.decode_report(payload) == report


@given(st.lists(st.integers(1, 60), max_size=40))
def test_frames_come_out_whole_however_the_stream_is_cut(sizes: list[int]) -> None:
    stream = b"".join(ipc.encode_frame(report) for report in REPORTS)
    buffer = ipc.FrameBuffer()
    got: list[bytes] = []
    for size in [*sizes, len(stream)]:
        got += buffer.feed(stream[:size])
        stream = stream[size:]

    assert [ipc.decode_report(payload) for payload in got] == REPORTS


def test_an_announced_length_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ProtocolError):
        ipc.FrameBuffer().feed(b"\xff\xff\xff\xff")


def test_foreign_bytes_are_no_command_and_no_report() -> None:
    foreign = msgspec.msgpack.encode({"type": "dance"})

    with pytest.raises(ProtocolError):
        ipc.decode_command(foreign)
    with pytest.raises(ProtocolError):
        ipc.decode_report(foreign)


def test_an_unknown_field_is_ignored() -> None:
    newer = msgspec.msgpack.encode({"type": "cancel", "key": "k", "because": "tired"})

    assert ipc.decode_command(newer) == ipc.Cancel("k")


def test_a_frame_socket_carries_messages_and_sees_the_end() -> None:
    left, right = socket.socketpair()
    sender, receiver = ipc.FrameSocket(left), ipc.FrameSocket(right)
    sender.send(ipc.Ping(1))
    sender.close()

    payloads = receiver.receive()
    assert payloads is not None
    assert [ipc.decode_command(payload) for payload in payloads] == [ipc.Ping(1)]
    assert receiver.receive() is None
    receiver.close()
