"""How close is the simulator? Every scenario live, live again, and simulated; signed errors.

    python benchmarks/fidelity.py                  # all, with the shipped profiles, 23 minutes
    python benchmarks/fidelity.py --calibrate 30   # measure the network first, and the engines of a
                                                   # scenario between its live runs; half an hour
    python benchmarks/fidelity.py --calibrate 30 --ship  # and ship the middle one of those profiles
    python benchmarks/fidelity.py steady burst     # some of them
    python benchmarks/fidelity.py --sim-only --runs RUNS  # the live runs that are there
    python benchmarks/fidelity.py --gpu --calibrate 60     # the scenarios for one GPU, see below

Live and simulated runs play the same requests (same plan, same seed). `again` is the difference of
the two live runs to each other, `sim` that of the simulation to their mean; both in percent of the
mean. A figure is good within its goal, or within the difference of the two live runs where that is
larger. With two busy engines on two cores nothing is claimed: those rows are reported apart.

The processor itself drifts by several percent in minutes, so a profile is compared with what ran
just before and after it. Others on the machine, or another life of the worker, make all steps
slower or faster together, too. `speed` tells such a drift from errors of the model: the live runs
record their steps, and what those that only decode took, over what the profile says of them, is one
number for both runs. `at speed` is the error of a simulation with the profile multiplied by it (one
engine only). `from run` is what a user has without measuring anything: each live run played again
by `anyserve sim --from-run`, with the shipped profile and the run's own speed, the mean of both.

On a GPU the model has the shape of Llama 3.1 8B and made-up weights (`benchmarks/llama_shape.py`
makes its folder), and its engine is measured once: a GPU does not drift. Without --calibrate the
profile from published figures is held against it.
Writes benchmarks/results/fidelity-one.json, fidelity-several.json and fidelity-gpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import yaml
from bench import report
from rich.console import Console

from anyserve.cli.run_events import load_events
from anyserve.runtime.calibrate.messages import MeasuredStep
from anyserve.runtime.engines.step_record import RecordedStep
from anyserve.sim.message_time import message_time_ns
from anyserve.telemetry.runs import open_run
from anyserve.workload.profiles import load_profile

ROOT = Path(__file__).parents[1]
SCENARIOS = Path(__file__).parent / "fidelity"
SEED = 11
ONE_ENGINE = ("steady", "burst", "long-prompts", "kv-pressure")
SEVERAL = ("mixed", "delegation", "killed")
ON_GPU = ("gpu-steady", "gpu-burst", "gpu-long-prompts", "gpu-kv-pressure")
METRICS = (
    # name, path in the summary, goal in percent
    ("TTFT mean", "ttft.mean_ms", 3.0),
    ("TTFT p99", "ttft.p99_ms", 5.0),
    ("TPOT mean", "tpot.mean_ms", 3.0),
    ("TPOT p99", "tpot.p99_ms", 5.0),
    ("E2E mean", "e2e.mean_ms", 3.0),
    ("E2E p99", "e2e.p99_ms", 5.0),
    ("tokens/s", "throughput.output_tokens_per_s", 2.0),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one scenario. Errors in percent of the live mean."""

    scenario: str
    metric: str
    live: float
    again: float
    sim: float
    goal: float
    at_speed: float | None = None
    speed: float | None = None
    from_run: float | None = None

    @property
    def allowed(self) -> float:
        """The error that still counts as good."""
        return max(self.goal, abs(self.again))

    @property
    def good(self) -> bool:
        """Whether the simulation is within it."""
        return abs(self.sim) <= self.allowed

    @property
    def good_at_speed(self) -> bool:
        """Whether the simulation at the live runs' speed is within it."""
        return self.at_speed is not None and abs(self.at_speed) <= self.allowed

    @property
    def good_from_run(self) -> bool:
        """Whether the live runs, played again, are within it."""
        return self.from_run is not None and abs(self.from_run) <= self.allowed


class RunFailedError(Exception):
    """A run could not be played; the message holds its output."""


class Player:
    """Runs scenarios, live and simulated, by the command line that users have."""

    def __init__(self, folder: Path, profiles: Profiles, latency_us: float | None) -> None:
        self._folder = folder
        self._profiles = profiles
        self._latency_us = latency_us
        self._console = Console(stderr=True)

    def live(self, name: str, turn: int) -> dict[str, Any]:
        """The summary of a live run."""
        return self._summary(name, f"live{turn}", ["up", _file(name), "--no-memory-check"])

    def simulated(self, name: str) -> dict[str, Any]:
        """The summary of a simulated run."""
        more = self._overrides(name, self._profiles.of(name))
        return self._summary(name, "sim", ["sim", _file(name), *more])

    def at_speed(self, name: str) -> tuple[float, dict[str, Any]] | None:
        """How many times as long as the profile says the live runs' decodes took, and the summary
        of a simulation with a profile of that speed. None: no steps were recorded."""
        steps = [step for turn in (1, 2) for step in _steps(self._folder / f"{name}-live{turn}")]
        model = next(iter(_models(name)))
        profile = load_profile(self._profiles.of(name).get(model, _profile(name, model)))
        formula = profile.step_time
        said = sum(formula.step_ps(step.work) for step in steps)
        if not said:
            return None
        speed = 1000 * sum(step.wall_ns for step in steps) / said
        path = self._folder / f"{name}.profile.json"
        scaled = msgspec.structs.replace(profile, step_time=formula.scaled(speed))
        path.write_bytes(msgspec.json.encode(scaled))
        more = self._overrides(name, {model: str(path)})
        return speed, self._summary(name, "at-speed", ["sim", _file(name), *more])

    def recorded(self, name: str, turn: int) -> dict[str, Any]:
        """The summary of a live run that is there already."""
        return _read(self._folder / f"{name}-live{turn}")

    def from_run(self, name: str) -> list[dict[str, Any]]:
        """The summaries of both live runs, played again as fast as they were."""
        cores = ["--set", f"sim.cores={os.cpu_count()}"]
        found = []
        for turn in (1, 2):
            live = _newest(self._folder / f"{name}-live{turn}")
            words = ["sim", "--match-speed", "--from-run", str(live), *cores]
            found.append(self._summary(name, f"again{turn}", words))
        return found

    def _summary(self, name: str, kind: str, words: list[str]) -> dict[str, Any]:
        runs = self._folder / f"{name}-{kind}"
        runs.mkdir(exist_ok=True)
        for old in runs.glob("steps-*.jsonl"):
            old.unlink()
        options = ["--seed", str(SEED), "--ui", "none", "--runs", str(runs)]
        began = time.monotonic()
        command = [sys.executable, "-m", "anyserve.cli", *words, *options]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "ANYSERVE_RECORD_STEPS": str(runs)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        took = time.monotonic() - began
        load = os.getloadavg()[0]
        self._console.print(f"{name:14} {kind:6} {took:5.1f} s  load {load:.1f}", highlight=False)
        if done.returncode not in (0, 1):
            raise RunFailedError(
                f"{' '.join(command)}\n{done.stdout[-800:]}\n{done.stderr[-2000:]}"
            )
        return _read(runs)

    def _overrides(self, name: str, profiles: dict[str, str]) -> list[str]:
        words = ["--set", f"sim.cores={os.cpu_count()}"]
        if self._latency_us is not None:
            words += ["--set", f"sim.network.latency={self._latency_us:.0f}us"]
        for model, replicas in _models(name).items():
            if model in profiles:
                for replica in replicas:
                    profile = profiles[model]
                    words += ["--set", f"cluster.replicas.{replica}.engine.profile={profile}"]
        return words


def _file(name: str) -> str:
    return str(SCENARIOS / f"{name}.yaml")


def _as_in(name: str, replicas: list[str]) -> list[str]:
    """Options that measure the engine of these replicas (the largest of each); where its memory
    is for pressure, more than that, which does not change how long a step takes."""
    every = _replicas(name)
    said = [every[one] for one in replicas]
    engines = [one["engine"] for one in said]
    seqs = max(one["concurrency"] for one in said)
    context = max(one["max_model_len"] for one in engines)
    memory = max(one.get("kv_cache_gib", 0.25) for one in engines)
    tokens = max(one.get("max_num_batched_tokens", 0) for one in engines)
    options = {
        f"{option}={setting}"
        for one in engines
        for option, setting in one.get("options", {}).items()
        if option != "num_gpu_blocks_override"
    }
    return [
        "--max-num-seqs", str(seqs),
        "--max-model-len", str(context),
        "--kv-cache-gib", str(max(0.25, memory)),
        *(("--max-num-batched-tokens", str(tokens)) if tokens else ()),
        *(word for option in sorted(options) for word in ("--option", option)),
    ]  # fmt: skip


def _replicas(name: str) -> dict[str, dict[str, Any]]:
    scenario = yaml.safe_load((SCENARIOS / f"{name}.yaml").read_text())
    replicas: dict[str, dict[str, Any]] = scenario["cluster"]["replicas"]
    return replicas


def _models(name: str) -> dict[str, list[str]]:
    """The models of a scenario, and the replicas that serve each."""
    found: dict[str, list[str]] = {}
    for replica, said in _replicas(name).items():
        found.setdefault(said["engine"].get("model", ""), []).append(replica)
    return found


def _profile(name: str, model: str) -> str:
    """What a scenario says its engines compute like."""
    replica = _replicas(name)[_models(name)[model][0]]
    return str(replica["engine"].get("profile", model))


def _steps(runs: Path) -> list[MeasuredStep]:
    """The recorded steps of a live run that only decode."""
    lines = [line for path in runs.glob("steps-*.jsonl") for line in path.open("rb")]
    steps = [msgspec.json.decode(line, type=RecordedStep) for line in lines]
    return [
        MeasuredStep(0, 0, one.decodes, one.context, 0, one.wall_ns, one.cpu_ns, held_out=True)
        for one in steps
        if not one.prefills
    ]


def _newest(runs: Path) -> Path:
    newest = max(runs.glob("*/summary.json"), key=lambda path: path.stat().st_mtime)
    return newest.parent


def _read(runs: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((_newest(runs) / "summary.json").read_text())
    return summary


def value(summary: dict[str, Any], path: str) -> float | None:
    """A figure of a summary by its dotted path."""
    at: Any = summary
    for word in path.split("."):
        at = at.get(word) if isinstance(at, dict) else None
    return float(at) if isinstance(at, int | float) else None


def compare(
    name: str,
    live_runs: tuple[Any, Any],
    simulated: Any,
    at_speed: tuple[float, dict[str, Any]] | None,
    played_again: Sequence[Any],
) -> list[Row]:
    """The rows of one scenario."""
    rows = []
    speed, corrected = (None, None) if at_speed is None else at_speed
    for metric, path, goal in METRICS:
        found = [value(one, path) for one in (*live_runs, simulated)]
        if any(one is None for one in found):
            continue
        a, b, sim = (one for one in found if one is not None)
        live = (a + b) / 2
        if live:
            again, error = 100 * (b - a) / live, 100 * (sim - live) / live
            row = Row(name, metric, live, round(again, 2), round(error, 2), goal)
            if corrected is not None and (there := value(corrected, path)) is not None:
                drift = round(100 * (there - live) / live, 2)
                row = replace(row, at_speed=drift, speed=speed)
            both = [value(one, path) for one in played_again]
            known = [one for one in both if one is not None]
            if len(known) == len(both) > 0:
                off = round(100 * (statistics.fmean(known) - live) / live, 2)
                row = replace(row, from_run=off)
            rows.append(row)
    return rows


class Profiles:
    """Which profile each model of a scenario is simulated with; models that are not in it have
    the shipped one."""

    def __init__(self, folder: Path, given: dict[str, str], seconds: float | None) -> None:
        self._folder = folder
        self._given = given
        self._seconds = seconds

    def measure(self, name: str) -> None:
        """Measure the engines of a scenario, where that is asked for; on a GPU once."""
        for model, replicas in _models(name).items() if self._seconds else ():
            if model in self._given:
                continue
            more = _as_in(name, replicas)
            if name in SEVERAL:
                more += ["--contention", "2"]
            command = [
                sys.executable, "-m", "anyserve.cli", "calibrate", "--model", model,
                "--seconds", str(self._seconds), "--out", str(self._path(name, model)), *more,
            ]  # fmt: skip
            subprocess.run(command, cwd=ROOT, check=True, timeout=400)
            if name in ON_GPU:
                self._given[model] = str(self._path(name, model))

    def of(self, name: str) -> dict[str, str]:
        """Model -> the file with its profile."""
        return self._given | {model: str(path) for model, path in self._measured(name).items()}

    def ship(self, names: Sequence[str]) -> None:
        """Replace each shipped profile by the one of middle speed of those measured for these
        scenarios; what it says of contention stays."""
        found: dict[str, list[dict[str, Any]]] = {}
        for name in names:
            for model, path in self._measured(name).items():
                found.setdefault(model, []).append(json.loads(path.read_text()))
        for model, profiles in found.items():
            profiles.sort(key=lambda one: one["step_time"]["base_ps"])
            middle = profiles[len(profiles) // 2]
            shipped = ROOT / "anyserve" / "workload" / "profile_data" / f"{model}.json"
            middle.setdefault("contention", json.loads(shipped.read_text()).get("contention", []))
            shipped.write_text(json.dumps(middle, indent=2) + "\n")

    def _measured(self, name: str) -> dict[str, Path]:
        paths = {model: self._path(name, model) for model in _models(name) if self._seconds}
        return {model: path for model, path in paths.items() if path.exists()}

    def _path(self, name: str, model: str) -> Path:
        return self._folder / f"{name}-{Path(model).name}.profile.json"


def network_latency_us(folder: Path) -> float:
    """How long one message takes here, from a run of its own on an engine that computes nothing."""
    Player(folder, Profiles(folder, {}, None), None).live("network", 0)
    envelopes, _ = load_events(open_run(folder / "network-live0"))
    took_ns = message_time_ns(envelopes)
    if took_ns is None:
        raise RunFailedError("network: too few requests to tell how long a message takes")
    return took_ns / 1000


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = (*ONE_ENGINE, *SEVERAL, *ON_GPU)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(names))
    parser.add_argument("--calibrate", type=float, metavar="S", help="measure engines meanwhile")
    parser.add_argument(
        "--profile", action="append", default=[], metavar="MODEL=FILE", help="use these profiles"
    )
    parser.add_argument(
        "--ship", action="store_true", help="make the new profiles the shipped ones"
    )
    parser.add_argument("--gpu", action="store_true", help="the scenarios for a GPU")
    parser.add_argument("--latency", type=float, metavar="US", help="of one message")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "fidelity")
    parser.add_argument("--sim-only", action="store_true", help="the live runs in --runs again")
    options = parser.parse_args()
    options.runs = options.runs.resolve()
    options.runs.mkdir(parents=True, exist_ok=True)
    pairs = (pair.split("=", 1) for pair in options.profile)
    given = {model: str(Path(path).resolve()) for model, path in pairs}
    profiles = Profiles(options.runs, given, options.calibrate)
    if options.calibrate and not options.sim_only:
        options.latency = options.latency or network_latency_us(options.runs)
        print(f"one message takes {options.latency:.0f} us", file=sys.stderr)
    player = Player(options.runs, profiles, options.latency)
    live = player.recorded if options.sim_only else player.live
    rows: list[Row] = []
    failed = 0
    played = options.scenarios or (ON_GPU if options.gpu else (*ONE_ENGINE, *SEVERAL))
    for name in played:
        try:
            first = live(name, 1)
            if not options.sim_only:
                profiles.measure(name)
            second = live(name, 2)
            at_speed = player.at_speed(name) if name not in SEVERAL else None
            simulated = player.simulated(name)
            again = player.from_run(name)
            rows += compare(name, (first, second), simulated, at_speed, again)
        except RunFailedError as error:
            failed += 1
            print(f"{name} failed\n{error}", file=sys.stderr)
    if options.ship:
        profiles.ship(played)
    show(rows)
    return 1 if failed else 0


def show(rows: list[Row]) -> None:
    """The tables, and the file."""
    for file, title, names in (
        ("one", "one engine", ONE_ENGINE),
        ("several", "several engines, apart", SEVERAL),
        ("gpu", "one engine on a GPU", ON_GPU),
    ):
        part = [row for row in rows if row.scenario in names]
        if not part:
            continue
        table = [
            {
                "scenario": row.scenario,
                "metric": row.metric,
                "live": f"{row.live:.1f}",
                "again %": f"{row.again:+.1f}",
                "sim %": f"{row.sim:+.1f}",
                "goal %": f"{row.goal:g}",
                "": "good" if row.good else "off",
                "speed": "" if row.speed is None else f"{row.speed:.3f}",
                "at speed %": "" if row.at_speed is None else f"{row.at_speed:+.1f}",
                "from run %": "" if row.from_run is None else f"{row.from_run:+.1f}",
            }
            for row in part
        ]
        good = sum(row.good for row in part)
        corrected = sum(row.good_at_speed for row in part)
        again = sum(row.good_from_run for row in part)
        report(
            f"fidelity-{file}",
            f"Fidelity, {title}: {good} of {len(part)} within goal or live-to-live"
            + (f", {corrected} at the live runs' speed" if corrected else "")
            + f", {again} from the runs themselves",
            table,
            errors=[{**_fields(row), "good": row.good} for row in part],
            seed=SEED,
        )


def _fields(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


if __name__ == "__main__":
    sys.exit(main())
