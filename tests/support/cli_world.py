"""The command line as users meet it: arguments in, streams and exit code out."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from anyserve.cli.main import main

MARK = "ANYSERVE_TEST_MARK"
WAIT_S = 50.0
TINY = """\
version: 1
name: {name}
cluster:
  capabilities:
    decode: {{upgrade: decode.heavy}}
    decode.heavy: {{}}
  replicas:
    s1:
      capabilities: [decode]
      concurrency: 4
      engine: {{kind: echo, max_model_len: 128, step: {step}}}
    h1:
      capabilities: [decode.heavy]
      concurrency: 4
      engine: {{kind: echo, max_model_len: 1024, step: {step}}}
traffic:
  phases: [{{name: all, duration: {duration}}}]
  streams:
    chat: {{capability: decode, entry: s1, rate: 5, prompt_tokens: 16, output_tokens: {tokens}}}
    heavy: {{capability: decode.heavy, entry: s1, rate: 2, prompt_tokens: 16,
             output_tokens: {tokens}}}
expect:
  - {expect}
"""


def tiny_scenario(
    path: Path,
    *,
    name: str = "tiny",
    duration: str = "1s",
    step: str = "1ms",
    tokens: int = 4,
    expect: str = "requests.completed == requests.offered",
) -> Path:
    """Write a scenario that needs nothing but a broker."""
    text = TINY.format(name=name, duration=duration, step=step, tokens=tokens, expect=expect)
    path.write_text(text)
    return path


@dataclass
class Result:
    """What one call came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Cli:
    """Calls the command line within this process, in an empty world of its own."""

    cwd: Path
    capsys: pytest.CaptureFixture[str]
    environ: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str) -> Result:
        code = main(words, environ=self.environ, cwd=self.cwd)
        captured = self.capsys.readouterr()
        return Result(code, captured.out, captured.err)


@dataclass
class Process:
    """`anyserve` as a process of its own."""

    popen: subprocess.Popen[str]
    err: list[str] = field(default_factory=list)

    def wait_for(self, word: str) -> str:
        """Read standard error up to the line that holds `word`."""
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.err.append(line)
            if word in line:
                return line
        raise AssertionError(f"no {word!r} in:\n{''.join(self.err)}")

    def interrupt(self) -> None:
        self.popen.send_signal(signal.SIGINT)

    def finish(self) -> Result:
        out, err = self.popen.communicate(timeout=WAIT_S)
        return Result(self.popen.returncode, out, "".join(self.err) + err)


@dataclass
class Shell:
    """Starts `anyserve` processes, and proves that nothing of them is left."""

    cwd: Path
    temp: Path
    mark: str
    processes: list[Process] = field(default_factory=list)

    def start(self, *words: str) -> Process:
        popen = subprocess.Popen(
            [sys.executable, "-m", "anyserve.cli", *words],
            cwd=self.cwd,
            env={**os.environ, "TMPDIR": str(self.temp), MARK: self.mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process = Process(popen)
        self.processes.append(process)
        return process

    def run(self, *words: str) -> Result:
        return self.start(*words).finish()

    def run_on_terminal(self, *words: str) -> list[str]:
        """The lines that are left on a terminal's screen and above it, without escapes."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "anyserve.cli", *words],
            cwd=self.cwd,
            env={**os.environ, "TMPDIR": str(self.temp), MARK: self.mark, "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ):
            os.close(theirs)
            shown = b"".join(iter(partial(_read_terminal, ours), b""))
        os.close(ours)
        return _screen(shown.decode())

    def left_processes(self) -> list[str]:
        """Command lines of marked processes that still run."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    def left_files(self) -> list[str]:
        """What lies in the temporary directory and among the clusters' files."""
        clusters = Path(os.environ["XDG_STATE_HOME"]) / "anyserve" / "clusters"
        files = [path.name for path in self.temp.iterdir()]
        return files + [path.name for path in clusters.glob("*")]

    def assert_clean(self) -> None:
        assert self.left_processes() == []
        assert self.left_files() == []


def _read_terminal(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except OSError:  # the last process that had it open has left
        return b""


def _screen(shown: str) -> list[str]:
    """As a terminal would: `erase line` empties it, a carriage return begins it anew."""
    lines = []
    for line in shown.split("\n"):
        erased = line.rpartition("\x1b[2K")[2]
        lines.append(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", erased).strip("\r"))
    return lines
