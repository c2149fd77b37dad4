"""What the screens cost: time to the first picture, CPU while they run, memory over an hour.

    python benchmarks/tui.py
    python benchmarks/tui.py --seconds 20 --sizes 8 50 1000

Each screen runs as a process of its own in a real pseudo-terminal of 160 x 50 cells, which is read
as fast as it is written. Its events are made before it starts and handed over in real time: every
replica reports its load once a second, and requests come at `--rate` a second.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import gc
import json
import os
import pty
import select
import signal
import struct
import sys
import tempfile
import termios
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from anyserve.core.events import Envelope, ReplicaChanged, ReplicaLoad, RunStarted
from anyserve.core.messages import Load
from anyserve.telemetry.run_plan import RunPlan
from anyserve.telemetry.source import SourceKind
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.tui import TuiOptions, run
from anyserve.tui.feed import LiveFeed

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "docs/screens/mixed"
SCENARIO = ROOT / "scenarios/laptop.yaml"
ROWS, COLUMNS = 50, 160
S, MS = 1_000_000_000, 1_000_000
SETTLE_S = 3.0
BEAT_S = 0.1
HOUR_S = 3600
HOUR_RATE = 20
FIRST_RUNS = 10


# --- events ------------------------------------------------------------------------------------


def events(replicas: int, rate: float, seconds: int) -> list[Envelope]:
    """What a cluster says in so many seconds."""
    teller = Storyteller()
    started = RunStarted(
        run="bench", scenario="bench", seed=0, planned_requests=0, planned_s=float(seconds)
    )
    teller.say("player", 0, started)
    for n in range(replicas):
        offers = {("chat", "code", "embed")[n % 3]: None, "decode": None}
        ready = ReplicaChanged(
            replica=f"r{n}", state="ready", incarnation=1, offers=offers, concurrency=8
        )
        teller.say(f"r{n}", 0, ready)
    for second in range(seconds):
        for n in range(replicas):
            at = second * S + n * S // replicas
            load = Load(
                running=(second * (n % 5 + 2) + n) % 9,
                waiting=max(0, (second + n) % 11 - 8),
                kv_usage=((second + n) % 100) / 100,
                tokens_per_s=float((second * 37 + n * 11) % 400),
            )
            teller.say(f"r{n}", at, ReplicaLoad(replica=f"r{n}", load=load))
    for n in range(int(rate * seconds)):
        at = round(n / rate * S)
        served = Leg(f"r{n % replicas}", prefill_ns=20 * MS, decode_ns=(200 + n % 700) * MS)
        entered = Leg(f"r{(n + 1) % replicas}", end="delegate", routed=False)
        legs = [entered, served] if n % 5 == 0 else [served]
        teller.request(f"player/1/{n}", legs, intended_ns=at, n_tokens=20)
    return sorted(teller.envelopes, key=lambda one: one.t)


@dataclass(slots=True)
class Paced:
    """An event source that says prepared events at their time."""

    envelopes: Sequence[Envelope]
    kind: SourceKind = SourceKind.LIVE
    closed: bool = False

    @property
    def facts(self) -> Mapping[str, str]:
        """A made-up broker."""
        return {"broker": "mqtt://127.0.0.1:1883"}

    async def __aiter__(self) -> AsyncIterator[Sequence[Envelope]]:
        begun = time.monotonic()
        at = 0
        while at < len(self.envelopes) and not self.closed:
            until = (time.monotonic() - begun) * S
            first = at
            while at < len(self.envelopes) and self.envelopes[at].t <= until:
                at += 1
            if at > first:
                yield self.envelopes[first:at]
            await asyncio.sleep(BEAT_S)

    async def close(self) -> None:
        """Stop."""
        self.closed = True


def child(replicas: int, rate: float, seconds: int, hz: float) -> int:
    """The process that is measured."""
    heard = events(replicas, rate, seconds)
    gc.collect()
    os.write(1, b"prepared\n")
    return run(Paced(heard), options=TuiOptions(plan=RunPlan(), paint_hz=hz))


# --- a pseudo-terminal -------------------------------------------------------------------------


class Terminal:
    """A process in a pseudo-terminal that somebody reads."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.begun = time.monotonic()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.environ.update({"TERM": "xterm-256color", "COLORTERM": "truecolor"})
            os.environ.pop("NO_COLOR", None)
            os.execv(argv[0], list(argv))
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = psutil.Process(self.pid)
        self.seen = 0

    def read_until(self, text: bytes | None, seconds: float) -> float | None:
        """Read for so long, or until `text` is seen; gives the time since the start then."""
        tail = b""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            ready, _, _ = select.select([self.fd], [], [], left)
            if not ready:
                break
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                break
            self.seen += len(data)
            tail = (tail + data)[-8192:]
            if text is not None and text in tail:
                return time.monotonic() - self.begun
        return None

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        times = self.process.cpu_times()
        return times.user + times.system

    def wait(self, seconds: float) -> int:
        """Read until it has ended; gives the exit code, or kills it and gives -9."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.read_until(None, 0.1)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return -signal.SIGKILL

    def end(self) -> int:
        """Press q, and give the exit code."""
        os.write(self.fd, b"q")
        return self.wait(10.0)


# --- measuring ---------------------------------------------------------------------------------


def first_picture() -> dict[str, float]:
    """From the start of `anyserve tui --replay` to its first picture: the best of a few runs."""
    argv = [sys.executable, "-m", "anyserve.cli", "tui", "--replay", str(RECORDED), "--paused"]
    walls, cpus = [], []
    for _ in range(FIRST_RUNS):
        terminal = Terminal(argv)
        wall = terminal.read_until(b"delegations", 30.0)
        assert wall is not None, "no picture within 30 s"
        walls.append(wall)
        cpus.append(terminal.cpu_s())
        terminal.end()
    return {"wall_s": min(walls), "cpu_s": min(cpus), "wall_worst_s": max(walls)}


def running_cost(replicas: int, rate: float, seconds: int, hz: float) -> dict[str, float]:
    """CPU share, bytes and memory of a screen that runs."""
    length = int(seconds + SETTLE_S + 4)
    argv = [sys.executable, __file__, "--child", str(replicas), str(rate), str(length), str(hz)]
    terminal = Terminal(argv)
    assert terminal.read_until(b"prepared", 120.0) is not None
    terminal.read_until(None, SETTLE_S)
    cpu, begun, seen = terminal.cpu_s(), time.monotonic(), terminal.seen
    terminal.read_until(None, seconds)
    took = time.monotonic() - begun
    share = (terminal.cpu_s() - cpu) / took
    rss = terminal.process.memory_info().rss / 2**20
    written = (terminal.seen - seen) / took / 1024
    code = terminal.end()
    return {
        "replicas": replicas, "cpu_percent_of_a_core": 100 * share,
        "kib_per_s_to_terminal": written, "rss_mib": rss, "exit_code": code,
    }  # fmt: skip


def hour() -> list[dict[str, float]]:
    """Memory of a feed over an hour of events, with a picture every ten seconds of it."""
    feed = LiveFeed(Paced(()), RunPlan(), time.monotonic)
    process = psutil.Process()
    samples = []
    begun_cpu = time.process_time()
    folded = 0
    for minute, batch in enumerate(_minutes()):
        asyncio.run(feed._fold(batch))  # noqa: SLF001 - what `run` does, without waiting
        folded += len(batch)
        del batch
        feed.frame()
        if (minute + 1) % 10 == 0:
            gc.collect()
            samples.append(
                {
                    "minute": float(minute + 1),
                    "events": float(folded),
                    "rss_mib": process.memory_info().rss / 2**20,
                    "cpu_s": time.process_time() - begun_cpu,
                }
            )
    return samples


def beside_a_cluster(ui: str) -> dict[str, float | str]:
    """The latencies of a cluster with this `--ui`: `tui` paints in a process beside it."""
    with tempfile.TemporaryDirectory() as runs:
        terminal = Terminal(
            [sys.executable, "-m", "anyserve.cli", "up", str(SCENARIO), "--engine", "echo",
             "--ui", ui, "--runs", runs]
        )  # fmt: skip
        if ui == "tui":
            assert terminal.read_until(b" ENDED ", 120.0) is not None
            os.write(terminal.fd, b"q")
        code = terminal.wait(120.0)
        summary = json.loads((Path(runs) / "latest" / "summary.json").read_text())
    return {
        "ui": ui,
        "ttft_p50_ms": summary["ttft"]["p50_ms"],
        "ttft_p95_ms": summary["ttft"]["p95_ms"],
        "completed": summary["requests"]["completed"],
        "exit_code": code,
    }


def _minutes() -> Iterator[list[Envelope]]:
    """An hour, a minute at a time; each minute's requests have names of their own."""
    numbers: dict[str, int] = {}
    for minute in range(HOUR_S // 60):
        batch = []
        for one in events(8, HOUR_RATE, 60):
            if minute and isinstance(one.event, RunStarted):
                continue
            seq = numbers.get(one.source, 0)
            numbers[one.source] = seq + 1
            batch.append(_moved(one, minute, seq))
        yield batch


def _moved(one: Envelope, minute: int, seq: int) -> Envelope:
    import msgspec  # noqa: PLC0415 - only here

    event = one.event
    if hasattr(event, "id"):
        changes = {"id": f"{event.id}-{minute}"}
        if hasattr(event, "intended_ns"):
            changes["intended_ns"] = event.intended_ns + minute * 60 * S  # type: ignore[assignment]
        event = msgspec.structs.replace(event, **changes)
    return msgspec.structs.replace(one, t=one.t + minute * 60 * S, seq=seq, event=event)


def main() -> int:
    """Measure, print, write `results/tui_*.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=4, metavar=("REPLICAS", "RATE", "SECONDS", "HZ"))
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="*", default=[8, 50, 1000])
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--no-hour", action="store_true")
    args = parser.parse_args()
    if args.child:
        replicas, rate, seconds, hz = args.child
        return child(int(replicas), float(rate), int(seconds), float(hz))
    from bench import report  # noqa: PLC0415 - the measured process must not load the runtime

    report("tui_start", "First picture of anyserve tui --replay, best of 10", [first_picture()])
    if args.sizes:
        costs = [running_cost(n, args.rate, args.seconds, 4.0) for n in args.sizes]
        report("tui_cpu", f"A screen at 4 Hz, {args.rate:g} requests a second", costs)
    if args.pairs:
        beside = [beside_a_cluster(ui) for ui in ("plain", "tui") * args.pairs]
        report("tui_beside", "Latency of scenarios/laptop.yaml (echo), without and with", beside)
    if not args.no_hour:
        report("tui_memory", f"An hour of 8 replicas and {HOUR_RATE} requests a second", hour())
    return 0


if __name__ == "__main__":
    sys.exit(main())
