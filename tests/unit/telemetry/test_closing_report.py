from __future__ import annotations

import io

from rich.console import Console

from anyserve.core.events import (
    ReplicaLoad,
    RequestOffered,
    RequestOutcome,
    RunEnded,
    RunStarted,
)
from anyserve.core.messages import Load
from anyserve.core.spec import Expectation
from anyserve.telemetry.expect import evaluate
from anyserve.telemetry.report import print_report
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.summary import RunFacts, Slo, summarise, to_dict
from anyserve.telemetry.trace import build_trace, notable_requests

S = 1_000_000_000


def story() -> Storyteller:
    teller = Storyteller()
    teller.register("s1", {"decode": 256})
    run = RunStarted(run="r1", scenario="mixed", seed=7, planned_requests=3, planned_s=2.0)
    teller.say("player", 0, run)
    entry = Leg("s1", routed=False, end="delegate")
    teller.request("p/1/0", [entry, Leg("h1", "decode.heavy")])
    teller.request("p/1/1", [Leg("s1", end="lost"), Leg("s1", end="return"), Leg("s1")])
    offered = RequestOffered(
        id="p/1/2",
        capability="decode",
        prompt_tokens=1,
        max_tokens=1,
        entry="scheduler",
        intended_ns=0,
    )
    teller.say("player", 3, offered)
    rejected = RequestOutcome(id="p/1/2", outcome="rejected", end_ns=9, code="queue_full")
    teller.say("player", 9, rejected)
    teller.say("player", 2 * S, RunEnded(reason="done"))
    return teller


def printed(
    teller: Storyteller, expectations: list[Expectation], *, slowest: bool = False, width: int = 120
) -> str:
    facts = RunFacts(kind="live")
    summary = summarise(teller.envelopes, slo=Slo(ttft_ms=100), facts=facts)
    results = evaluate(expectations, to_dict(summary))
    traces = notable_requests(teller.envelopes) if slowest else []
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_report(summary, results, console, slowest=traces)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_report_tells_the_run() -> None:
    text = printed(story(), [], slowest=True)
    head, outcomes = text.splitlines()[:2]
    assert head == "mixed · seed 7 · 2.0 s · live · r1"
    assert outcomes == (
        "3 offered · 2 completed · 1 rejected · 1 delegated · 1 recovered · 1 returned · "
        "11.0 tokens/s · goodput 33.3%"
    )
    for part in ("decode → decode.heavy", "because too_long", "queue_full", "p/1/1", "first token"):
        assert part in text
    assert "expectations" not in text


def test_expectations_show_what_was() -> None:
    text = printed(
        story(),
        [
            Expectation(metric="requests.offered", op="==", value=3),
            Expectation(metric="ttft.p99_ms", op="<", value=1),
            Expectation(metric="capabilities.decode.tpot.count", op="==", value=9),
            Expectation(metric="nothing", op="==", value=9),
            Expectation(metric="machine.gpu", op="==", value=1),
        ],
    )
    assert "✔ requests.offered == 3  (was 3)" in text
    assert "✘ ttft.p99_ms < 1  (was " in text
    assert "? nothing == 9  no metric 'nothing'" in text
    assert "1 of 5 expectations met" in text


def test_an_unmeasured_metric_was_unknown() -> None:
    teller = Storyteller()
    text = printed(teller, [Expectation(metric="ttft.p99_ms", op="<", value=1)])
    assert "(was unknown)" in text
    assert "nothing was measured" in text
    assert text.startswith("run")


def test_an_incomplete_log_is_said_twice() -> None:
    teller = story()
    del teller.envelopes[4]
    text = printed(teller, [Expectation(metric="requests.offered", op=">", value=0)])
    assert "incomplete: 1 events missing" in text.splitlines()[2]
    assert "… requests.offered > 0" in text
    assert "0 of 1 expectations met" in text


def test_a_request_that_still_runs_is_reported_as_such() -> None:
    teller = story()
    offered = next(one for one in teller.envelopes if isinstance(one.event, RequestOffered))
    summary = summarise(teller.envelopes)
    console = Console(file=io.StringIO(), width=120, color_system=None)
    print_report(summary, [], console, slowest=[build_trace([offered])])
    assert isinstance(console.file, io.StringIO)
    assert "running" in console.file.getvalue()


def test_all_expectations_met() -> None:
    text = printed(story(), [Expectation(metric="requests.offered", op="==", value=3)])
    assert text.splitlines()[-1] == "1 of 1 expectations met"


def test_of_a_large_fleet_the_busiest_are_shown() -> None:
    teller = Storyteller()
    for number in range(60):
        teller.register(f"r{number}", {"decode": 256})
        load = Load(running=number % 3)
        teller.say(f"r{number}", S, ReplicaLoad(replica=f"r{number}", load=load))
    text = printed(teller, [])

    shown = {word for line in text.splitlines() for word in line.split()[:1]}
    assert {word for word in shown if word in {f"r{number}" for number in range(60)}} == {
        f"r{number}" for number in range(60) if number % 3 == 2
    }
    assert "the 20 busiest of 60 replicas" in text
