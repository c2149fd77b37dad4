"""Handlers in their loop, without a replica: outputs, cancels, calls, blocking, the end."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import handler_app
import msgspec
import pytest

from anyserve.errors import AnyServeError
from anyserve.runtime.handlers.host import HandlerHost
from anyserve.runtime.handlers.words import (
    AppConfig,
    Call,
    CallCancel,
    CallEnded,
    CallPiece,
    Handle,
    Output,
    Outputs,
    Payload,
)

DIRECTORY = str(Path(handler_app.__file__).parent)
WAIT_S = 20.0


class Replica:
    """Keeps what the host says, and lets a test wait for it."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.cancelled: list[str] = []
        self._changed = threading.Condition()

    def send(self, message: msgspec.Struct) -> None:
        with self._changed:
            self.said += message.outputs if isinstance(message, Outputs) else [message]
            self._changed.notify_all()

    def report_cancelled(self, keys: list[str]) -> None:
        with self._changed:
            self.cancelled += keys
            self._changed.notify_all()

    def until(self, holds: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(holds, WAIT_S), self.said

    def outputs(self, key: str) -> list[Output]:
        return [one for one in self.said if isinstance(one, Output) and one.key == key]

    def answer(self, key: str) -> list[Any]:
        """Wait until it is done; what it gave."""
        self.until(lambda: any(one.done for one in self.outputs(key)))
        return [json.loads(one.payload.json) for one in self.outputs(key) if one.payload]

    def calls(self) -> list[Call]:
        return [one for one in self.said if isinstance(one, Call)]


@pytest.fixture
def replica() -> Replica:
    return Replica()


@pytest.fixture
def host(replica: Replica) -> Iterator[HandlerHost]:
    config = AppConfig(name="handler_app:app", directory=DIRECTORY, concurrency=2, stop_grace_s=0.1)
    made = HandlerHost(config, replica.send, replica.report_cancelled)
    made.start()
    yield made
    made.stop()


def handle(key: str, capability: str, payload: Any = None, **changes: Any) -> Handle:
    sent = Payload(msgspec.json.encode(payload))
    return Handle(key=key, request_id=key, capability=capability, payload=sent, **changes)


def test_items_and_results_are_told_apart(host: HandlerHost, replica: Replica) -> None:
    host.put(handle("a", "count", 3))
    host.put(handle("b", "length", "four"))

    assert replica.answer("a") == [0, 1, 2]
    assert replica.answer("b") == [4]
    assert [(one.item, one.done) for one in replica.outputs("a")] == [(True, False)] * 3 + [
        (False, True)
    ]
    assert [(one.item, one.done) for one in replica.outputs("b")] == [(False, True)]
    began = [one.began_ns for one in replica.outputs("a")]
    assert began[0] > 0
    assert began[1:] == [0, 0, 0]
    replica.until(lambda: host.held == 0)


def test_a_slowed_worker_takes_its_time(host: HandlerHost, replica: Replica) -> None:
    host.slow(4.0)
    host.put(handle("a", "name", {"name": "Ada"}))  # sleeps 10 ms
    replica.answer("a")

    assert time.monotonic_ns() - replica.outputs("a")[0].began_ns > 35_000_000


def test_a_cancelled_attempt_says_nothing_more(
    host: HandlerHost, replica: Replica, tmp_path: Path
) -> None:
    host.put(handle("a", "wait", str(tmp_path / "note")))
    assert not host.cancel("nobody")
    assert host.cancel("a")

    replica.until(lambda: replica.cancelled == ["a"])
    assert replica.outputs("a") == []


def test_a_call_goes_out_and_its_answer_comes_in(host: HandlerHost, replica: Replica) -> None:
    host.put(handle("a", "relay", {"to": "far", "payload": [1], "timeout_s": 2}))
    replica.until(lambda: bool(replica.calls()))
    (call,) = replica.calls()
    assert (call.key, call.capability, call.payload.json) == ("a", "far", b"[1]")
    assert (call.streamed, call.timeout_ms) == (False, 2000)

    host.put(CallPiece(call.call, Payload(b'"x"'), item=True))
    host.put(CallPiece(call.call, Payload(b'"y"'), item=True))
    host.put(CallEnded(call.call))
    host.put(CallEnded(call.call, "late"))

    assert replica.answer("a") == [["x", "y"]]
    assert not any(isinstance(one, CallCancel) for one in replica.said)


def test_a_handler_that_ends_gives_its_open_calls_up(host: HandlerHost, replica: Replica) -> None:
    host.put(handle("a", "relay", {"to": "far"}))
    replica.until(lambda: bool(replica.calls()))
    host.cancel("a")

    replica.until(lambda: CallCancel(replica.calls()[0].call) in replica.said)


def test_objects_need_a_plane(host: HandlerHost, replica: Replica) -> None:
    host.put(handle("a", "make", 3))
    replica.answer("a")

    (output,) = replica.outputs("a")
    assert output.code == "handler_error"
    assert "no object plane" in (output.error or "")


def test_who_blocks_the_loop_is_named(
    host: HandlerHost, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    entered = threading.Event()

    def block() -> None:
        entered.set()
        release.wait(WAIT_S)

    host._loop.call_soon_threadsafe(block)
    assert entered.wait(WAIT_S)
    with caplog.at_level(logging.WARNING):
        while (since := host.blocked_since_ns()) is None:
            time.sleep(0.05)
        host.blocked_since_ns()
    release.set()

    assert time.monotonic_ns() - since > 1_000_000_000
    warnings = [one for one in caplog.records if "kept the event loop" in one.message]
    assert len(warnings) == 1
    assert "release.wait(WAIT_S)" in warnings[0].message
    host.put(handle("a", "length", "x"))
    replica.answer("a")
    replica.until(lambda: host.blocked_since_ns() is None)


def test_the_end_cancels_what_runs_and_stops_the_workers(replica: Replica, tmp_path: Path) -> None:
    config = AppConfig(name="handler_app:app", directory=DIRECTORY, stop_grace_s=0.05)
    host = HandlerHost(config, replica.send, replica.report_cancelled)
    host.start()
    host.put(handle("a", "warm", str(tmp_path / "stopped")))
    host.put(handle("b", "wait", str(tmp_path / "note")))
    assert replica.answer("a") == [[True, 1]]
    host.stop()

    assert (tmp_path / "stopped").read_text() == "stopped"
    assert (tmp_path / "note").read_text() == "cancelled=True"
    assert replica.cancelled == ["b"]


@pytest.mark.parametrize(
    ("name", "serves", "code"),
    [
        ("handler_app:app", ("nothing",), "handler_missing"),
        ("handler_app:Point", (), "plugin_shape"),
        ("handler_app", (), "plugin_name"),
        ("handler_app:apq", (), "plugin_missing"),
    ],
)
def test_an_app_that_does_not_fit_does_not_start(
    replica: Replica, name: str, serves: tuple[str, ...], code: str
) -> None:
    host = HandlerHost(
        AppConfig(name=name, directory=DIRECTORY, serves=serves),
        replica.send,
        replica.report_cancelled,
    )
    with pytest.raises(AnyServeError) as caught:
        host.start()
    assert caught.value.code == code
