"""`anyserve plan`: the cheapest mix of replicas that keeps what is promised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.session import Session
from anyserve.cli.sim.prepare import duration_ns
from anyserve.cli.trials.following import follow
from anyserve.cli.trials.pool import Notebook
from anyserve.core.spec import Expectation
from anyserve.errors import UsageError
from anyserve.sim.trial import Trial
from anyserve.telemetry.expect import ExpectationResult, evaluate
from anyserve.workload.expectations import parse_expectation
from anyserve.workload.load import load_scenario
from anyserve.workload.schema import ScenarioFile, SloTimes

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA: Final = "anyserve.mix/1"
GOODPUT: Final = "goodput.share >= 0.99"


@dataclass(frozen=True, slots=True, kw_only=True)
class MixOptions:
    """What `anyserve plan` was asked for."""

    scenario: Path
    slo: tuple[str, ...] = ()
    replicas: tuple[str, ...] = ()
    costs: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    seeds: int = 2
    first_seed: int = 0
    jobs: int = 1
    duration: str | None = None
    out: Path | None = None
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Mix:
    """So many replicas of each group, and what they cost together."""

    counts: tuple[tuple[str, int], ...]
    cost: float

    def __str__(self) -> str:
        return "  ".join(f"{name} {count}" for name, count in self.counts)


@dataclass(frozen=True, slots=True)
class Judged:
    """A mix and how it kept the promises: the worst over the seeds."""

    mix: Mix
    results: tuple[ExpectationResult, ...]

    @property
    def keeps(self) -> bool:
        """Whether it kept all of them with every seed."""
        return all(result.passed for result in self.results)

    @property
    def kept(self) -> int:
        """How many promises it kept, over all seeds."""
        return sum(result.passed for result in self.results)


def run_mix(session: Session, options: MixOptions) -> int:
    """Everything that `anyserve plan` does; returns its exit code.

    Raises:
        AnyServeError: the scenario or an option is wrong.
    """
    file = load_scenario(options.scenario, options.overrides).file
    promises = _promises(file, options.slo)
    ranges = _ranges(file, options.replicas)
    costs = _costs(file, options.costs)
    notebook = Notebook(options.out)
    judge = partial(_judge, session, options, promises, notebook)
    judged = _Search(ranges, costs, judge).run()
    best = next((one for one in judged if one.keeps), None)
    if options.as_json:
        session.output.json(_as_object(options, judged, best))
    else:
        session.output.draw(lambda console: _print(console, judged, best))
    return ExitCode.OK if best is not None else ExitCode.EXPECTATIONS_FAILED


class _Search:
    """Finds the cheapest mix that keeps its promises.

    More replicas are taken to do no harm. So for each choice of the other groups the fewest
    replicas of the one with the widest range are found by halving it, and only mixes that would be
    cheaper than the best one so far are tried.
    """

    def __init__(
        self,
        ranges: Mapping[str, Sequence[int]],
        costs: Mapping[str, float],
        judge: Callable[[Mix], Judged],
    ) -> None:
        self._ranges = ranges
        self._costs = costs
        self._judge = judge
        self._widest = max(ranges, key=lambda name: len(ranges[name]))
        self._judged: dict[Mix, Judged] = {}
        self._best: Judged | None = None

    def run(self) -> list[Judged]:
        """All mixes that were tried, by cost."""
        others = [name for name in self._ranges if name != self._widest]
        choices = [
            dict(zip(others, counts, strict=True))
            for counts in product(*(self._ranges[name] for name in others))
        ]
        for choice in sorted(choices, key=self._cost):
            self._fewest(choice)
        found = self._judged.values()
        return sorted(found, key=lambda one: (one.mix.cost, not one.keeps, -one.kept))

    def _fewest(self, choice: Mapping[str, int]) -> None:
        counts = [
            count
            for count in self._ranges[self._widest]
            if self._best is None or self._mix(choice, count).cost < self._best.mix.cost
        ]
        if not counts or not self._try(self._mix(choice, counts[-1])):
            return
        low, high = 0, len(counts) - 1  # counts[high] keeps
        while low < high:
            middle = (low + high) // 2
            if self._try(self._mix(choice, counts[middle])):
                high = middle
            else:
                low = middle + 1

    def _try(self, mix: Mix) -> bool:
        judged = self._judged.get(mix)
        if judged is None:
            judged = self._judged[mix] = self._judge(mix)
        cheaper = self._best is None or mix.cost < self._best.mix.cost
        if judged.keeps and cheaper:
            self._best = judged
        return judged.keeps

    def _mix(self, choice: Mapping[str, int], count: int) -> Mix:
        counts = {**choice, self._widest: count}
        named = tuple((name, counts[name]) for name in self._ranges)
        return Mix(named, self._cost(counts))

    def _cost(self, counts: Mapping[str, int]) -> float:
        return sum(self._costs[name] * count for name, count in counts.items())


def _judge(
    session: Session,
    options: MixOptions,
    promises: Sequence[Expectation],
    notebook: Notebook,
    mix: Mix,
) -> Judged:
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    cut_ns = duration_ns(options.duration)
    overrides = (*options.overrides, *_overrides(mix))
    trials = [Trial(str(options.scenario), overrides, seed, cut_ns) for seed in seeds]
    found = follow(session, trials, notebook, options.jobs)
    results = (evaluate(promises, found[trial].summary) for trial in trials)
    judged = Judged(mix, tuple(one for some in results for one in some))
    mark = session.terminal.mark(ok=judged.keeps)
    session.diagnostics.say(f"{mark} {mix}  cost {mix.cost:g}")
    return judged


def _overrides(mix: Mix) -> tuple[str, ...]:
    return tuple(f"cluster.replicas[{name}].count={count}" for name, count in mix.counts)


def _promises(file: ScenarioFile, texts: Sequence[str]) -> list[Expectation]:
    if not texts and (file.slo.capabilities or any(_times(file.slo))):
        texts = (GOODPUT,)
    found = []
    for text in texts:
        expectation = parse_expectation(text)
        if expectation is None:
            hint = "write METRIC OP VALUE, such as 'ttft.p95_ms < 800'"
            raise UsageError(f"'{text}' is no promise", code="bad_slo", hint=hint)
        found.append(expectation)
    if not found:
        hint = "--slo 'ttft.p95_ms < 800', or a `slo` section in the scenario"
        raise UsageError("nothing is promised", code="bad_slo", hint=hint)
    return found


def _times(slo: SloTimes) -> tuple[int | None, ...]:
    return slo.ttft, slo.tpot, slo.e2e


def _ranges(file: ScenarioFile, texts: Sequence[str]) -> dict[str, list[int]]:
    replicas = file.cluster.replicas
    ranges = {
        name: list(range(1, 2 * (one.count or 1) + 1)) if one.count else [1]
        for name, one in replicas.items()
    }
    for text in texts:
        name, values = _named(text, list(replicas))
        low, dots, high = values.partition("..")
        if not low.isdecimal() or (dots and not high.isdecimal()):
            hint = "write NAME=LOW..HIGH, such as s=1..6"
            raise UsageError(f"'{text}' is no range", code="bad_range", hint=hint)
        ranges[name] = list(range(max(1, int(low)), int(high if dots else low) + 1))
    found = {name: one for name, one in ranges.items() if replicas[name].count or len(one) > 1}
    if not found:
        hint = "give a group a count, or name its range: --replicas s=1..6"
        raise UsageError("no group of replicas can be varied", code="bad_range", hint=hint)
    return found


def _costs(file: ScenarioFile, texts: Sequence[str]) -> dict[str, float]:
    """A replica costs its GPUs, or 1."""
    costs = {name: one.engine.gpus or 1.0 for name, one in file.cluster.replicas.items()}
    for text in texts:
        name, value = _named(text, list(costs))
        try:
            costs[name] = float(value)
        except ValueError:
            hint = "write NAME=NUMBER, such as heavy=4"
            raise UsageError(f"'{text}' is no cost", code="bad_cost", hint=hint) from None
    return costs


def _named(text: str, known: Sequence[str]) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if name not in known:
        hint = f"one of: {', '.join(known)}"
        raise UsageError(f"no replicas '{name}' in the scenario", code="unknown_group", hint=hint)
    return name, value.strip()


def _as_object(
    options: MixOptions, judged: Sequence[Judged], best: Judged | None
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "scenario": str(options.scenario),
        "cheapest": None if best is None else _mix_object(best),
        "tried": [_mix_object(one) for one in judged],
    }


def _mix_object(one: Judged) -> dict[str, Any]:
    return {
        "replicas": dict(one.mix.counts),
        "cost": one.mix.cost,
        "keeps": one.keeps,
        "promises": [
            {"text": result.text, "passed": result.passed, "actual": result.actual}
            for result in one.results
        ],
    }


def _print(console: Console, judged: Sequence[Judged], best: Judged | None) -> None:
    from rich.table import Table  # noqa: PLC0415 - only where it is drawn

    table = Table(box=None, pad_edge=False)
    for head in ("cost", "replicas", "", "worst of the seeds"):
        table.add_column(head)
    for one in _frontier(judged):
        worst = {result.text: result for result in one.results if not result.passed}
        shown = {result.text: result for result in one.results} | worst
        said = ", ".join(f"{text} (was {_number(shown[text].actual)})" for text in shown)
        mark = "✔" if one.keeps else "✘"
        table.add_row(f"{one.mix.cost:g}", str(one.mix), mark, said)
    console.print(table)
    console.print()
    if best is None:
        console.print("no mix in these ranges keeps the promises")
    else:
        console.print(f"cheapest: {best.mix}, cost {best.mix.cost:g}")


def _frontier(judged: Sequence[Judged]) -> list[Judged]:
    """Of each cost the mix that did best: what more money buys."""
    found: dict[float, Judged] = {}
    for one in judged:
        found.setdefault(one.mix.cost, one)
    return list(found.values())


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
