from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec
import pytest

from anyserve.runtime.engines.base import (
    EngineConfig,
    EngineKind,
    EngineRequest,
    Sampling,
    StepOutput,
)
from anyserve.runtime.engines.echo import EchoEngine
from anyserve.runtime.worker import ipc
from anyserve.runtime.worker.loop import Inbox, StepLoop


def request(key: str, tokens: int = 3, prompt: int = 4) -> EngineRequest:
    return EngineRequest(
        key=key, prompt_ids=list(range(prompt)), sampling=Sampling(max_tokens=tokens)
    )


class Rig:
    """A step loop whose every message is kept, and that can answer to them."""

    def __init__(self, engine: EchoEngine | None = None) -> None:
        self.engine = engine or EchoEngine(EngineConfig(kind=EngineKind.ECHO, max_model_len=16))
        self.engine.start(lambda *_: None)
        self.inbox = Inbox()
        self.sent: list[msgspec.Struct] = []
        self.reaction: Callable[[msgspec.Struct], None] = lambda _: None
        self.loop = StepLoop(self.engine, self.inbox, self.take)

    def take(self, message: msgspec.Struct) -> None:
        self.sent.append(message)
        self.reaction(message)

    def run(self, *commands: ipc.Command) -> None:
        for command in commands:
            self.inbox.put(command)
        self.loop.run()

    def frames(self) -> list[ipc.StepFrame]:
        return [message for message in self.sent if isinstance(message, ipc.StepFrame)]

    def stop_when_done(self, key: str) -> None:
        def react(message: msgspec.Struct) -> None:
            if isinstance(message, ipc.StepFrame) and any(
                delta.done and delta.key == key for delta in message.deltas
            ):
                self.inbox.put(ipc.Stop())

        self.reaction = react


def test_one_frame_per_step_carries_all_requests() -> None:
    rig = Rig()
    rig.stop_when_done("b")

    rig.run(ipc.Submit(request("a")), ipc.Submit(request("b")))

    frames = rig.frames()
    assert [frame.number for frame in frames] == [1, 2, 3]
    assert [[delta.key for delta in frame.deltas] for frame in frames] == [["a", "b"]] * 3
    assert all(frame.started_ns <= frame.ended_ns for frame in frames)
    assert [intake.key for intake in frames[0].intakes] == ["a", "b"]
    assert frames[1].intakes == []
    assert all(i.received_ns <= i.submitted_ns for i in frames[0].intakes)
    assert rig.loop.held == 0


def test_a_bad_request_fails_alone() -> None:
    rig = Rig()
    rig.stop_when_done("good")

    rig.run(ipc.Submit(request("bad", prompt=99)), ipc.Submit(request("good")))

    failures = [message for message in rig.sent if isinstance(message, ipc.Failed)]
    assert [(failed.key, failed.code) for failed in failures] == [("bad", "too_long")]
    assert rig.frames()[-1].deltas[0].done


def test_an_engine_that_stumbles_over_a_request_fails_that_request() -> None:
    class Stumbling(EchoEngine):
        def submit(self, request: EngineRequest) -> None:
            raise RuntimeError("no such kernel")

    rig = Rig(Stumbling(EngineConfig(kind=EngineKind.ECHO)))
    rig.run(ipc.Submit(request("a")), ipc.Stop())

    assert rig.sent == [ipc.Failed("a", "RuntimeError: no such kernel", "engine_error")]


def test_a_cancel_takes_effect_at_the_next_step_boundary() -> None:
    rig = Rig()

    def react(message: msgspec.Struct) -> None:
        if isinstance(message, ipc.StepFrame) and message.number == 1:
            rig.inbox.put(ipc.Cancel("a"))
        if isinstance(message, ipc.Cancelled):
            rig.inbox.put(ipc.Stop())

    rig.reaction = react
    rig.run(ipc.Submit(request("a", tokens=9)))

    assert len(rig.frames()) == 1
    assert rig.sent[-1] == ipc.Cancelled(["a"])
    assert rig.loop.held == 0


def test_the_same_key_twice_is_one_request() -> None:
    rig = Rig()
    rig.stop_when_done("a")

    rig.run(ipc.Submit(request("a")), ipc.Submit(request("a")))

    assert [len(frame.deltas) for frame in rig.frames()] == [1, 1, 1]


def test_a_ping_is_answered_from_the_loop() -> None:
    rig = Rig()
    rig.run(ipc.Ping(4), ipc.Stop())

    assert rig.sent == [ipc.Pong(4)]


def test_a_broken_engine_ends_the_loop() -> None:
    class Breaking(EchoEngine):
        def step(self) -> StepOutput:
            raise RuntimeError("the batch is lost")

    rig = Rig(Breaking(EngineConfig(kind=EngineKind.ECHO)))
    with pytest.raises(RuntimeError, match="the batch is lost"):
        rig.run(ipc.Submit(request("a")))


def test_a_slowed_engine_pauses_after_its_step() -> None:
    """The pause is seen on a clock that only moves when the loop sleeps."""
    now = [0]
    engine = EchoEngine(
        EngineConfig(kind=EngineKind.ECHO, step_interval_ms=10),
        sleep=lambda seconds: now.__setitem__(0, now[0] + int(seconds * 1e9)),
    )
    slept: list[float] = []

    class TimedInbox(Inbox):
        def sleep(self, seconds: float) -> None:
            slept.append(seconds)
            now[0] += int(seconds * 1e9)

    rig = Rig(engine)
    rig.inbox = TimedInbox(lambda: now[0])
    rig.loop = StepLoop(engine, rig.inbox, rig.take, lambda: now[0])
    rig.stop_when_done("a")

    rig.run(ipc.Slow(3.0), ipc.Submit(request("a", tokens=3)))

    assert slept == [pytest.approx(0.02)] * 2
    starts = [frame.started_ns for frame in rig.frames()]
    assert starts == [0, 30_000_000, 60_000_000]


def test_an_idle_loop_waits_for_commands() -> None:
    rig = Rig()
    thread = threading.Thread(target=rig.loop.run)
    thread.start()
    rig.stop_when_done("a")
    rig.inbox.put(ipc.Submit(request("a")))
    thread.join(timeout=10)

    assert not thread.is_alive()
    assert len(rig.frames()) == 3
