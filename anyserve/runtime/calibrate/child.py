"""The process that holds the engine while it is measured.

It is started with `python -m`, is told what to do in lines of JSON on its standard input, and
answers in lines of JSON on what was its standard output; what the libraries print goes to a log. It
ends when its input ends, so it never outlives the command that started it.
"""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from anyserve.errors import AnyServeError
from anyserve.runtime.calibrate.messages import (
    Answer,
    Broken,
    Command,
    Loaded,
    Loading,
    Measure,
    Measured,
    MeasuredStep,
    Measuring,
    Probe,
    Spinning,
)
from anyserve.runtime.calibrate.meter import Meter
from anyserve.runtime.calibrate.waves import Bounds, Wave, designed, random_waves, rested
from anyserve.runtime.engines.base import Engine, EngineConfig, Task
from anyserve.runtime.engines.create import create_engine
from anyserve.runtime.worker.ipc import FrameSocket

_WARM_UP: Final = 3
_IMPORTED: Final = 0.2
"""How far `start` says it is when its libraries are imported."""


class Child:
    """Obeys commands with one engine."""

    def __init__(self, config: EngineConfig, answers: IO[bytes]) -> None:
        self._config = config
        self._answers = answers
        self._engine: Engine = create_engine(config)
        self._meter: Meter
        self._bounds: Bounds

    def load(self) -> None:
        """Make the engine ready, and its first steps, which are slower than all others."""
        began = time.monotonic()

        def report(stage: str, done: float) -> None:
            nonlocal began
            if done <= _IMPORTED:
                began = time.monotonic()
            self._say(Loading(stage, done))

        info = self._engine.start(report)
        load_s = time.monotonic() - began
        embeds = self._config.task is Task.EMBED
        self._bounds = Bounds.of(info, embeds=embeds)
        self._meter = Meter(
            self._engine,
            info,
            embeds=embeds,
            clock_ns=time.monotonic_ns,
            cpu_ns=time.thread_time_ns,
            sleep=time.sleep,
            send=_listener().send,
        )
        self._say(Loading("warming up", 1.0))
        for wave in designed(self._bounds)[:_WARM_UP]:
            self._meter.play(wave)
        self._meter.intakes.clear()
        self._say(Loaded(info, load_s))

    def obey(self, command: Command) -> None:
        """Carry one command out."""
        if isinstance(command, Measure):
            self._measure(command)
        elif isinstance(command, Probe):
            self._probe(command)
        else:
            self._say(Spinning())
            while True:
                for wave in self._probes():
                    self._meter.play(wave)

    def _measure(self, command: Measure) -> None:
        began = time.monotonic()
        steps: list[MeasuredStep] = []
        longest_ms = round(20 * command.seconds)  # rests are not to be most of the time
        plan = rested(self._bounds, longest_ms) + designed(self._bounds)
        unplanned = random_waves(self._bounds, command.seed)
        # Designed and random waves take turns: a slow spell of the machine then touches both.
        while plan or time.monotonic() - began < command.seconds:
            for wave in (*plan[:3], next(unplanned), next(unplanned)):
                steps += self._meter.play(wave)
                spent = (time.monotonic() - began) / command.seconds
                self._say(Measuring(wave.name, min(1.0, spent), len(steps)))
            del plan[:3]
            if time.monotonic() - began > 2 * command.seconds:
                break
        self._say(Measured(steps, self._meter.intakes))

    def _probe(self, command: Probe) -> None:
        began = time.monotonic()
        steps: list[MeasuredStep] = []
        while time.monotonic() - began < command.seconds:
            for wave in self._probes():
                steps += self._meter.play(wave)
        self._say(Measured(steps, []))

    def _probes(self) -> list[Wave]:
        waves = designed(self._bounds)
        busiest = waves[len(waves) // 3 :: len(waves) // 3]
        return busiest[:2] if self._bounds.embeds else [waves[min(5, self._bounds.seqs - 1)]]

    def _say(self, answer: Answer) -> None:
        self._answers.write(msgspec.json.encode(answer) + b"\n")
        self._answers.flush()


def main() -> None:
    """Obey standard input until it ends."""
    answers = _take_stdout(Path(sys.argv[1]))
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=EngineConfig)
    threading.Thread(target=_read, args=(sys.stdin.buffer, lines), daemon=True).start()
    child = Child(config, answers)
    try:
        child.load()
        while True:
            command: Any = msgspec.json.decode(lines.get(), type=Command)
            child.obey(command)
    except AnyServeError as error:
        broken = Broken(error.message, error.code, error.hint)
        answers.write(msgspec.json.encode(broken) + b"\n")
        answers.flush()


def _listener() -> FrameSocket:
    """To another process, as a worker has its replica; this one throws away what it hears."""
    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.Popen(["cat"], stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
    return FrameSocket(ours)


def _read(stream: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    for line in stream:
        lines.put(line)
    os._exit(0)  # whoever started us is gone or has enough; the engine need not say goodbye


def _take_stdout(log: Path) -> IO[bytes]:
    """Keep standard output for answers; what libraries print goes to the log."""
    answers = os.fdopen(os.dup(1), "wb")
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    return answers


if __name__ == "__main__":
    main()
