"""How many requests a second the simulator plays, on one core, and what they cost where.

    python benchmarks/sim_speed.py [--requests N] [--large] [--fleet] [--million]

Workload W2: 16 replicas, 160 requests a second, Poisson, 512 tokens in and 128 out, dynamic routing
(least-loaded), full protocol: every message of every request goes through core's own scheduler,
replica and origin. W3: 1,000 replicas, 10,000 requests a second.

First the machines alone, each row in a process of its own. `events`: all of them are made and
counted. `recorded`: also written to a log, compressed. `sampled`: decisions are explained for 1 %
of the requests, and nothing is kept. `tally`: and all are counted as `anyserve sim --sample` does.
`exact`: every engine step is an entry of its own. `ahead`: engines plan their steps ahead, as vLLM
does on GPUs. All other rows are without that. The plan is made before. CPU time, peak memory of the
process.
`compiled/s` and `times`: the same again with what `anyserve compile` built, where that fits the
sources, at once after the run as Python.

Then the whole command, `anyserve sim`, from the start of its process to its end, with plan, log,
summary and report: wall and CPU time, peak memory. `start`: from exec to the first event.

`--large` adds 100,000 requests on 1,000 replicas, `--fleet` 4,000 replicas, `--million` a million
requests on 1,000. The command runs compiled where a build fits, which the
results say. Writes benchmarks/results/sim_speed.json and sim_command.json.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from anyserve.compiled.use import SWITCH, Standing, in_use, look, switch_on

COMPILED = switch_on()  # before the first import of what is compiled

from anyserve.core.events import Envelope  # noqa: E402
from anyserve.sim.recorder import Calls, Counted, Enveloped, Recorder, Sample  # noqa: E402
from anyserve.sim.simulation import Simulation  # noqa: E402
from anyserve.telemetry.log import EventLogWriter  # noqa: E402
from anyserve.telemetry.tally import Tally  # noqa: E402
from anyserve.workload.compile import Compiled, compile_scenario  # noqa: E402
from anyserve.workload.load import parse_scenario  # noqa: E402

PER_REPLICA = 10
"""Requests per second and replica."""
PROFILE = "llama-3.1-8b-h100-sxm"
SAYS_EVERY_S = 10.0
STARTS = 5


def scenario(replicas: int, requests: int, policy: str, *, ahead: bool = False) -> Compiled:
    """So many replicas under so many requests, ready to run."""
    text = yaml.safe_dump(scenario_data(replicas, requests, policy, ahead=ahead))
    return compile_scenario(parse_scenario(text), seed=1)


def scenario_data(
    replicas: int, requests: int, policy: str, *, ahead: bool = False
) -> dict[str, Any]:
    """So many replicas under so many requests; the same load on each, however many there are."""
    rate = PER_REPLICA * replicas
    return {
        "version": 1,
        "name": "speed",
        "cluster": {
            "capabilities": {"decode": {"queue_limit": 1_000_000}},
            "scheduler": {"policy": policy},
            "replicas": {
                "r": {
                    "count": replicas,
                    "capabilities": ["decode"],
                    "concurrency": 64,
                    "engine": engine(ahead=ahead),
                }
            },
        },
        "traffic": {
            "phases": [{"name": "all", "duration": f"{requests / rate:.3f}s"}],
            "streams": {
                "chat": {
                    "capability": "decode",
                    "rate": rate,
                    "arrivals": "poisson",
                    "prompt_tokens": 512,
                    "output_tokens": 128,
                }
            },
        },
    }


def engine(*, ahead: bool) -> dict[str, object]:
    options = {"async_scheduling": ahead}
    return {"kind": "model", "profile": PROFILE, "max_model_len": 4096, "options": options}


# --- the machines ------------------------------------------------------------------------------


def play(what: Compiled, recorder: Recorder, name: str, **options: Any) -> tuple[float, int]:
    """CPU seconds of a run, and its entries on the agenda."""
    simulation = Simulation(what, recorder, **options)
    gc.collect()
    gc.disable()
    say = Says(name)
    began = time.process_time()
    while not simulation.over:
        simulation.advance()
        say.progress(simulation)
    spent = time.process_time() - began
    gc.enable()
    return spent, simulation.entries


class Says:
    """How far a long run is, now and then, on standard error."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next_s = time.monotonic() + SAYS_EVERY_S

    def progress(self, simulation: Simulation) -> None:
        """Say it where it is time."""
        if time.monotonic() >= self._next_s:
            self._next_s += SAYS_EVERY_S
            at = simulation.progress()
            text = f"{self._name}: {at.settled:,} of {at.planned:,} requests\n"
            sys.stderr.write(text)


def measure(
    name: str, replicas: int, requests: int, policy: str = "least-loaded"
) -> dict[str, object]:
    what = scenario(replicas, requests, policy, ahead="ahead" in name)
    count = 0

    def record(*_: object) -> None:
        nonlocal count
        count += 1

    sample = Sample(0.01 if "sampled" in name or "tally" in name else 1.0)
    exact = "exact" in name
    if "recorded" in name:
        with (
            tempfile.TemporaryDirectory() as folder,
            EventLogWriter(Path(folder) / "events.jsonl.zst") as log,
        ):

            def write(envelope: Envelope) -> None:
                nonlocal count
                count += 1
                log.write(envelope)

            spent, entries = play(what, Enveloped(write), name, sample=sample, exact=exact)
    else:
        take = Recorder() if "sampled" in name else Calls(record)
        if "tally" in name:
            take = Counted(Tally())
        spent, entries = play(what, take, name, sample=sample, exact=exact)
    done = len(what.plan.requests)
    return {
        "workload": name,
        "replicas": replicas,
        "policy": policy,
        "requests": done,
        "cpu s": spent,
        "requests/s": done / spent,
        "us/request": 1e6 * spent / done,
        "entries/request": entries / done,
        "events/request": count / done if count else None,
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def alone(*arguments: Any) -> dict[str, object]:
    """`measure` in a process of its own, whose memory nothing else has grown; and compiled."""
    row = in_a_process(False, arguments)
    if look({})[0] is Standing.IN_USE:
        compiled = in_a_process(True, arguments)
        row["compiled/s"] = compiled["requests/s"]
        row["times"] = compiled["requests/s"] / row["requests/s"]
    return row


def in_a_process(compiled: bool, arguments: tuple[Any, ...]) -> dict[str, Any]:
    os.environ[SWITCH] = "1" if compiled else "0"
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(in_use) is compiled
            return pool.apply(measure, arguments)
    finally:
        del os.environ[SWITCH]


# --- the command -------------------------------------------------------------------------------


def command(name: str, replicas: int, requests: int, sample: float) -> dict[str, object]:
    """`anyserve sim`, from the start of its process to its end."""
    sys.stderr.write(f"{name} ...\n")
    with tempfile.TemporaryDirectory() as folder:
        words = written(Path(folder), replicas, requests)
        words += ["--sample", str(sample)] if sample < 1.0 else []
        began = time.perf_counter()
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
    return row(name, replicas, requests, wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def start(replicas: int) -> dict[str, object]:
    """From exec to the first event of the simulation: the best of several."""
    walls = []
    with tempfile.TemporaryDirectory() as folder:
        words = [*written(Path(folder), replicas, 10 * replicas), "--ui", "json"]
        for _ in range(STARTS):
            began = time.perf_counter()
            with subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as process:
                assert process.stdout is not None
                first = process.stdout.readline()
                walls.append(time.perf_counter() - began)
                assert b"scheduler.started" in first, first
                process.kill()
    return row(f"start, {replicas} replicas", replicas, None, min(walls), None, None)


def row(  # noqa: PLR0917 - one a column
    name: str,
    replicas: int,
    requests: int | None,
    wall_s: float,
    cpu_s: float | None,
    peak_mib: float | None,
) -> dict[str, object]:
    """A line of the table of commands."""
    return {
        "command": name,
        "replicas": replicas,
        "requests": requests,
        "wall s": wall_s,
        "cpu s": cpu_s,
        "requests/s of cpu": requests / cpu_s if requests and cpu_s else None,
        "peak MiB": peak_mib,
    }


def written(folder: Path, replicas: int, requests: int) -> list[str]:
    """The command line that simulates a scenario, which is written there."""
    path = folder / "speed.yaml"
    path.write_text(yaml.safe_dump(scenario_data(replicas, requests, "least-loaded")))
    return [sys.executable, "-m", "anyserve.cli", "sim", str(path), "--runs", str(folder / "runs")]


def commands(options: argparse.Namespace) -> list[Callable[[], dict[str, object]]]:
    """What of the command is measured."""
    count = options.requests
    rows: list[Callable[[], dict[str, object]]] = [
        lambda: start(16),
        lambda: command("W2, 1 % recorded", 16, count, 0.01),
        lambda: command("W2, recorded", 16, count, 1.0),
        lambda: command("W3, 1 % recorded", 1000, count, 0.01),
    ]
    if options.large:
        rows.append(lambda: command("W3, 0.1 % recorded", 1000, 100_000, 0.001))
    if options.fleet:
        rows += [
            lambda: start(4000),
            lambda: command("W3, fleet, 1 % recorded", 4000, 40_000, 0.01),
        ]
    if options.million:
        rows.append(lambda: command("W3, a million, 0.1 % recorded", 1000, 1_000_000, 0.001))
    return rows


def main() -> None:
    from bench import report  # noqa: PLC0415 - loads what the measured processes do not

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument(
        "--large", action="store_true", help="also 1,000 replicas, 100,000 requests"
    )
    parser.add_argument("--fleet", action="store_true", help="also 4,000 replicas")
    parser.add_argument(
        "--million", action="store_true", help="also 1,000 replicas, a million requests"
    )
    parser.add_argument("--only", choices=["machines", "command"])
    options = parser.parse_args()
    count = options.requests
    if options.only != "command":
        rows = [
            alone("W2 sampled", 16, count),
            alone("W2 tally", 16, count),
            alone("W2 events", 16, count),
            alone("W2 recorded", 16, count),
            alone("W2 exact", 16, count // 4),
            alone("W2 sampled, ahead", 16, count),
            alone("W2 sampled", 16, count, "power-of-two"),
            alone("W2 sampled, 160 replicas", 160, count),
            alone("W3 sampled, short", 1000, count),
        ]
        if options.large:
            rows.append(alone("W3 sampled", 1000, 100_000))
        if options.fleet:
            rows.append(alone("W3 sampled, fleet", 4000, 40_000))
        title = f"simulated requests per second, one core; compiled: {COMPILED.value}"
        report("sim_speed", title, rows, compiled=COMPILED.value)
    if options.only != "machines":
        report(
            "sim_command", "anyserve sim, from exec to exit", [row() for row in commands(options)]
        )


if __name__ == "__main__":
    main()
