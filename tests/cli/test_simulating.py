"""`anyserve sim`, `compare`, `sweep` and `plan` as users meet them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from cli_world import Cli

SCENARIO = """\
version: 1
name: small
cluster:
  capabilities:
    decode: {upgrade: decode.heavy}
    decode.heavy: {}
  replicas:
    s: {count: 2, capabilities: [decode], concurrency: 2,
        engine: {kind: model, model: smollm2-135m, max_model_len: 512}}
    h: {capabilities: [decode.heavy], concurrency: 2,
        engine: {kind: model, model: smollm2-135m, max_model_len: 2048}}
traffic:
  phases: [{name: all, duration: 10s}]
  streams:
    chat: {capability: decode, rate: 2, arrivals: poisson, prompt_tokens: 32, output_tokens: 16}
    heavy: {capability: decode.heavy, entry: s, rate: 0.5, prompt_tokens: 32, output_tokens: 16}
expect:
  - requests.completed == requests.offered
slo: {ttft: 2s}
"""


@pytest.fixture
def small(world: Path) -> Path:
    path = world / "small.yaml"
    path.write_text(SCENARIO)
    return path


def latest(world: Path) -> Path:
    return (world / "runs" / "latest").resolve()


def test_a_simulation_leaves_a_run_like_any_other(cli: Cli, small: Path) -> None:
    result = cli("sim", "small.yaml", "--check")

    assert result.code == 0, result.err
    assert "engines take the times of smollm2-135m as measured on " in result.err
    assert "1 of 1 expectations met" in result.out
    assert "all invariants hold" in result.err
    summary = json.loads((latest(small.parent) / "summary.json").read_text())
    assert (summary["kind"], summary["complete"]) == ("sim", True)
    shown = cli("runs", "show")
    assert " · sim · " in shown.out
    assert cli("trace", "1").code == 0


def test_a_missed_expectation_exits_1(cli: Cli, small: Path) -> None:
    result = cli("sim", "small.yaml", "--set", "expect=[ttft.p50_ms < 1]")

    assert result.code == 1
    assert "0 of 1 expectations met" in result.out


def test_the_same_command_leaves_the_same_log(cli: Cli, small: Path) -> None:
    logs = []
    for flags in ([], ["--exact"]):
        assert cli("sim", "small.yaml", "--ui", "none", *flags).code == 0
        logs.append((latest(small.parent) / "events.jsonl").read_bytes())

    assert logs[0] == logs[1]


def test_events_can_be_read_as_they_come(cli: Cli, small: Path) -> None:
    result = cli("sim", "small.yaml", "--ui", "json")

    lines = [json.loads(line) for line in result.out.splitlines()]
    assert lines[0]["event"]["type"] == "scheduler.started"
    assert lines[-1]["as_expected"]


def test_a_sample_of_the_events_leaves_the_figures_of_all(cli: Cli, small: Path) -> None:
    whole = cli("sim", "small.yaml", "--json").json
    sampled = cli("sim", "small.yaml", "--json", "--sample", "0.2").json

    assert sampled["ttft"] == whole["ttft"]
    assert sampled["requests"] == whole["requests"]
    log = (latest(small.parent) / "events.jsonl").read_text()
    ids = {json.loads(line)["event"].get("id") for line in log.splitlines()} - {None}
    assert 0 < len(ids) < whole["requests"]["offered"]


def test_the_report_of_a_sample_draws_all_requests_and_says_which_it_traces(
    cli: Cli, small: Path
) -> None:
    pages = []
    for flags in ([], ["--sample", "0.2"]):
        assert cli("sim", "small.yaml", *flags).code == 0
        pages.append((latest(small.parent) / "report.html").read_text())

    for title in ("Over time", "Latency of completed requests", "Capabilities", "Replicas"):
        whole, sampled = (page.partition(f"<h2>{title}</h2>")[2] for page in pages)
        assert whole.partition("<h2>")[0] == sampled.partition("<h2>")[0] != ""
    assert "of a sample: the 20.0% of them" in pages[1]
    assert "of a sample" not in pages[0]


def test_a_run_of_slower_engines_is_played_again_as_fast_as_it_was(cli: Cli, small: Path) -> None:
    # A run whose engines took 1.5 times as long as their profile says, as those of a slow machine.
    slow = ("cluster.replicas[*].engine.step_scale=1.5", "sim.network.latency=3ms")
    words = [word for one in (*slow, "sim.handover=4ms") for word in ("--set", one)]
    live = cli("sim", "small.yaml", "--json", "--duration", "120s", *words).json
    first = latest(small.parent)
    path = first / "scenario.resolved.json"
    resolved = json.loads(path.read_text())
    for replica in resolved["scenario"]["cluster"]["replicas"].values():
        del replica["engine"]["step_scale"]
    del resolved["scenario"]["sim"]
    path.write_text(json.dumps(resolved))

    as_profiled = cli("sim", "--from-run", first.name, "--json").json
    matched = cli("sim", "--from-run", first.name, "--match-speed", "--json")
    second = latest(small.parent)
    own = cli(
        "sim", "--from-run", first.name, "--match-speed", "--json",
        "--set", "cluster.replicas[s].engine.step_scale=0.5",
    )  # fmt: skip

    assert as_profiled["tpot"]["mean_ms"] < 0.7 * live["tpot"]["mean_ms"]
    assert matched.json["tpot"]["mean_ms"] == pytest.approx(live["tpot"]["mean_ms"], rel=0.01)
    assert matched.json["ttft"]["mean_ms"] == pytest.approx(live["ttft"]["mean_ms"], rel=0.02)
    found = "a message takes 3 ms, the way to an engine 4 ms, a step of smollm2-135m 1.5"
    assert f"as fast as {first.name} was: {found}" in matched.err
    again = json.loads((second / "scenario.resolved.json").read_text())
    replicas = again["scenario"]["cluster"]["replicas"]
    assert [one["engine"]["step_scale"] for one in replicas.values()] == [
        pytest.approx(1.5, rel=0.01)
    ] * 2
    assert "--match-speed" in again["command"]
    assert f"compare  anyserve compare {first.name} {second.name}" in matched.err
    assert own.json["tpot"]["mean_ms"] < matched.json["tpot"]["mean_ms"]


def test_only_a_run_has_a_speed_to_match(cli: Cli, small: Path) -> None:
    result = cli("sim", "small.yaml", "--match-speed")

    assert result.code == 2
    assert "--match-speed needs a run" in result.err


def test_a_recorded_run_is_played_again_under_other_settings(cli: Cli, small: Path) -> None:
    assert cli("sim", "small.yaml", "--ui", "none").code == 0
    first = latest(small.parent)
    again = cli("sim", "--from-run", first.name, "--json")
    assert again.code == 0, again.err
    second = latest(small.parent)
    assert (first / "events.jsonl").read_bytes() == (second / "events.jsonl").read_bytes()

    changed = cli("sim", "--from-run", first.name, "--json", "--set", "cluster.delegation.limit=0")
    assert changed.code == 1
    assert changed.json["requests"]["rejected"] == again.json["delegations"]["total"] > 0


HARD = "expect:\n  - replicas.h.completed >= 3\n"


def test_a_run_is_played_again_with_other_replicas_than_it_expected_something_of(
    cli: Cli, small: Path
) -> None:
    small.write_text(SCENARIO.replace("expect:\n", HARD))
    assert cli("sim", "small.yaml").code == 0
    changed = ("sim", "--from-run", "latest", "--set", "cluster.replicas[h].count=2")
    again = cli(*changed)
    judged = cli(*changed, "--set", "expect=['requests.completed == 0']")

    assert again.code == 0, again.err
    assert "not there now: replicas.h.completed >= 3" in again.err
    assert "1 of 1 expectations met" in again.out
    assert "not there now" not in judged.err
    assert "0 of 1 expectations met" in judged.out


def test_trials_may_have_other_replicas_than_the_scenario_expects_something_of(
    cli: Cli, small: Path
) -> None:
    small.write_text(SCENARIO.replace("expect:\n", HARD))
    cut = ("--seeds", "1", "--duration", "3s", "--json")
    swept = cli("sweep", "small.yaml", "--vary", "cluster.replicas[h].count=1,2", *cut)
    planned = cli(
        "plan", "small.yaml", "--slo", "requests.failed == 0", "--replicas", "h=1..2", *cut
    )
    simulated = cli("sim", "small.yaml", "--set", "cluster.replicas[h].count=2")

    assert (swept.code, planned.code) == (0, 0), swept.err + planned.err
    assert [one["set"]["cluster.replicas[h].count"] for one in swept.json["points"]] == ["1", "2"]
    assert (simulated.code, "no replica 'h'" in simulated.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), "usage"),
        (("small.yaml", "--from-run", "latest"), "usage"),
        (("--from-run", "nothing"), "unknown_run"),
        (("small.yaml", "--check", "--sample", "0.5"), "usage"),
        (("small.yaml", "--duration", "ten"), "bad_duration"),
    ],
)
def test_what_cannot_be_simulated_says_why(
    cli: Cli, small: Path, words: tuple[str, ...], code: str
) -> None:
    result = cli("sim", *words)

    assert result.code == 2
    assert f"error[{code}]" in result.err


def test_two_runs_are_compared(cli: Cli, small: Path) -> None:
    cli("sim", "small.yaml", "--ui", "none")
    first = latest(small.parent).name
    cli("sim", "small.yaml", "--ui", "none", "--set", "sim.network.latency=30ms")
    second = latest(small.parent).name

    result = cli("compare", first, second)
    assert result.code == 0
    assert f"A  {first} (sim)" in result.out
    found = cli("compare", first, second, "--json").json
    figures = {one["metric"]: one for one in found["figures"]}
    assert figures["requests.completed"]["error"] == 0
    assert figures["ttft.mean_ms"]["error"] > 0.1


def test_a_sweep_compares_points_and_goes_on_where_it_stopped(cli: Cli, small: Path) -> None:
    words = (
        "sweep", "small.yaml", "--vary", "cluster.delegation.limit=[0, 1]", "--seeds", "2",
        "--metric", "requests.completed", "--duration", "4s", "--out", "out.jsonl",
    )  # fmt: skip
    result = cli(*words, "--csv", "table.csv", "--json")

    assert result.code == 0, result.err
    none, one = result.json["points"]
    assert none["set"] == {"cluster.delegation.limit": "0"}
    assert none["metrics"]["requests.completed"]["runs"] == 2
    assert (
        none["metrics"]["requests.completed"]["mean"] < one["metrics"]["requests.completed"]["mean"]
    )
    with (small.parent / "table.csv").open() as file:
        assert len(list(csv.reader(file))) == 3
    again = cli(*words)
    assert "4 of 4 runs are known already" in again.err
    assert "confidence interval" in again.out


def test_a_sweep_of_nothing_is_refused(cli: Cli, small: Path) -> None:
    assert cli("sweep", "small.yaml").code == 2
    wrong = cli("sweep", "small.yaml", "--vary", "cluster.replicas[s].counts=[1, 2]")
    assert (wrong.code, "AS-S010" in wrong.err) == (2, True)


def test_the_cheapest_mix_that_keeps_a_promise_is_found(cli: Cli, small: Path) -> None:
    result = cli(
        "plan", "small.yaml", "--slo", "ttft.p99_ms < 1500", "--replicas", "s=1..6",
        "--set", "traffic.streams.chat.rate=8", "--seeds", "1", "--json",
    )  # fmt: skip

    assert result.code == 0, result.err
    cheapest = result.json["cheapest"]
    count = cheapest["replicas"]["s"]
    assert 1 < count < 6
    fewer = [one for one in result.json["tried"] if one["replicas"]["s"] < count]
    assert fewer
    assert not any(one["keeps"] for one in fewer)


def test_a_promise_that_nothing_keeps_exits_1(cli: Cli, small: Path) -> None:
    result = cli(
        "plan", "small.yaml", "--slo", "ttft.p99_ms < 1", "--replicas", "s=1..2", "--seeds", "1"
    )

    assert result.code == 1
    assert "no mix in these ranges keeps the promises" in result.out
