from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from anyserve.core.events import (
    BusTrouble,
    Envelope,
    FaultInjected,
    PolicyFailed,
    ReplicaChanged,
    ReplicaLoad,
    RequestOffered,
    RequestOutcome,
    RequestRejected,
    RunEnded,
    RunStarted,
    WorkerChanged,
)
from anyserve.core.messages import Load
from anyserve.telemetry.stats import Distribution, distribution, histogram_distribution
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.summary import (
    RunFacts,
    Slo,
    summarise,
    to_dict,
    write_summary,
)

MS = 1_000_000
S = 1_000_000_000
RUN = RunStarted(run="r1", scenario="mixed", seed=7, planned_requests=3, planned_s=2.0)


@pytest.fixture
def teller() -> Storyteller:
    """Three completed requests in two seconds: plain, delegated, recovered."""
    teller = Storyteller()
    teller.register("s1", {"decode": 256})
    teller.register("h1", {"decode.heavy": None})
    teller.say("player", 0, RUN)
    teller.request("p/1/0", [Leg("s1", scheduler_queue_ns=4 * MS, queue_ns=6 * MS)])
    entry = Leg("s1", routed=False, end="delegate", queue_ns=2 * MS)
    teller.request("p/1/1", [entry, Leg("h1", "decode.heavy")], client_delay_ns=5 * MS)
    teller.request("p/1/2", [Leg("s1", end="lost"), Leg("s1")])
    teller.say("player", 2 * S, RunEnded(reason="all settled"))
    return teller


def summary_of(teller: Storyteller, **options: Any) -> dict[str, Any]:
    return to_dict(summarise(teller.envelopes, **options))


def offer(teller: Storyteller, name: str, outcome: str | None, code: str | None = None) -> None:
    offered = RequestOffered(
        id=name,
        capability="decode",
        prompt_tokens=1,
        max_tokens=1,
        entry="scheduler",
        intended_ns=0,
    )
    teller.say("player", 1, offered)
    if outcome is not None:
        teller.say("player", 5, RequestOutcome(id=name, outcome=outcome, end_ns=5, code=code))


def test_requests_are_counted_by_what_became_of_them() -> None:
    teller = Storyteller()
    offer(teller, "p/1/0", "completed")
    offer(teller, "p/1/1", "rejected", "queue_full")
    offer(teller, "p/1/2", "rejected", "queue_full")
    offer(teller, "p/1/3", "failed")
    offer(teller, "p/1/4", "cancelled", "client_cancelled")
    offer(teller, "p/1/5", "expired", "deadline_exceeded")
    offer(teller, "p/1/6", None)
    assert summary_of(teller)["requests"] == {
        "offered": 7,
        "completed": 1,
        "failed": 1,
        "rejected": 2,
        "cancelled": 1,
        "expired": 1,
        "unresolved": 1,
        "by_reason": {
            "client_cancelled": 1,
            "deadline_exceeded": 1,
            "queue_full": 2,
            "unknown": 1,
        },
    }


@pytest.mark.parametrize(
    "names",
    [
        ["p/1/0", "p/1/00", "p/1/+0", "p/1/\u0660", "p/1/"],
        ["p/1/9999999", "p/1/3", "p/1/99999999999999999999", "p/2/3", "3"],
        ["", "/", "a/b", "p/1/-1", "p/1/1_0"],
    ],
)
def test_every_id_is_a_request_of_its_own(names: list[str]) -> None:
    teller = Storyteller()
    for name in names:
        offer(teller, name, "completed")
    for name in names:
        teller.say("scheduler", 9, RequestRejected(id=name, code="stale", received_ns=4))
    summary = summary_of(teller)
    assert (summary["requests"]["offered"], summary["requests"]["completed"]) == (5, 5)
    assert summary["queue"] == summary["queue"] | {"count": 5, "p50_ms": 5e-6, "max_ms": 5e-6}


def test_ids_keep_their_request_while_others_come_between() -> None:
    """Far ahead of the others, and later within their range."""
    teller = Storyteller()
    offer(teller, "p/1/70000", "completed")
    for number in range(6000):
        offer(teller, f"p/1/{number}", "completed")
    teller.say("scheduler", 9, RequestRejected(id="p/1/70000", code="stale", received_ns=4))
    summary = summary_of(teller)
    assert summary["requests"]["offered"] == 6001
    assert summary["queue"]["max_ms"] == 5e-6


def test_delegations_recoveries_and_hops(teller: Storyteller) -> None:
    summary = summary_of(teller)
    assert summary["delegations"] == {
        "total": 1,
        "requests": 1,
        "max_per_request": 1,
        "by_edge": {"decode->decode.heavy": 1},
        "by_reason": {"too_long": 1},
    }
    assert summary["recoveries"] == {"total": 1}
    assert summary["returns"] == summary["refusals"] == {"total": 0}
    assert summary["hops"] == {"mean": pytest.approx(4 / 3), "max": 2}


@pytest.mark.parametrize(("end", "name"), [("refuse", "refusals"), ("return", "returns")])
def test_hand_backs_that_are_no_delegation(end: str, name: str) -> None:
    teller = Storyteller()
    teller.request("p/1/0", [Leg("s1", end=end), Leg("s2")])
    summary = summary_of(teller)
    assert summary[name] == {"total": 1}
    assert summary["delegations"]["total"] == 0
    assert summary["hops"]["max"] == 1


def test_a_delegation_that_was_never_routed_goes_where_the_scheduler_meant() -> None:
    teller = Storyteller()
    teller.request("p/1/0", [Leg("s1", end="delegate"), Leg("h1", "decode.max")])
    teller.envelopes = [
        one
        for one in teller.envelopes
        if "decode.max" not in str(getattr(one.event, "capability", ""))
    ]
    assert summary_of(teller)["delegations"]["by_edge"] == {"decode->decode.heavy": 1}


def test_latencies_count_from_the_intended_time(teller: Storyteller) -> None:
    summary = summary_of(teller)
    assert summary["ttft"]["count"] == 3
    assert summary["e2e"]["max_ms"] == pytest.approx(1 + 1 + 121 + 2 + 121)
    assert summary["capabilities"]["decode"]["ttft"] == summary["ttft"]
    assert summary["tpot"]["p50_ms"] == pytest.approx(10.0)
    assert summary["itl"] == {
        "count": 30,
        **dict.fromkeys(["mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms"], 10.0),
    }
    assert summary["queue"]["max_ms"] == pytest.approx(10.0)


def test_the_first_token_of_a_late_request_includes_the_delay() -> None:
    teller = Storyteller()
    teller.request("p/1/0", [Leg("s1")], client_delay_ns=50 * MS)
    assert summary_of(teller)["ttft"]["p50_ms"] == pytest.approx(50 + 2 + 20 + 1)


def test_nothing_measured_is_null_and_nothing_happened_is_zero() -> None:
    summary = summary_of(Storyteller())
    assert summary["ttft"] == {"count": 0} | dict.fromkeys(
        ["mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms"]
    )
    assert summary["requests"]["offered"] == 0
    assert summary["throughput"] == dict.fromkeys(
        ["offered_per_s", "completed_per_s", "output_tokens_per_s"]
    )
    assert summary["goodput"] == {"share": None, "per_s": None}
    assert summary["hops"] == {"mean": None, "max": None}
    assert summary["duration_s"] is None
    assert summary["delegations"]["max_per_request"] == 0


def test_one_token_has_no_time_per_token() -> None:
    teller = Storyteller()
    teller.request("p/1/0", [Leg("s1")], n_tokens=1)
    summary = summary_of(teller)
    assert (summary["tpot"]["count"], summary["itl"]["count"]) == (0, 0)
    assert summary["ttft"]["count"] == 1


def test_tokens_and_throughput(teller: Storyteller) -> None:
    summary = summary_of(teller)
    assert summary["duration_s"] == 2.0
    assert summary["tokens"] == {"prompt": 192, "output": 33}
    assert summary["throughput"] == {
        "offered_per_s": 1.5,
        "completed_per_s": 1.5,
        "output_tokens_per_s": 16.5,
    }


@pytest.mark.parametrize(
    ("slo", "share"),
    [
        (Slo(), 1.0),
        (Slo(ttft_ms=50), 2 / 3),
        (Slo(tpot_ms=9), 0.0),
        ({"decode": Slo(e2e_ms=200)}, 2 / 3),
        ({"*": Slo(e2e_ms=200)}, 2 / 3),
        ({"embedding": Slo(e2e_ms=1)}, None),
    ],
)
def test_goodput_is_what_kept_the_slo(
    teller: Storyteller, slo: Slo | dict[str, Slo], share: float | None
) -> None:
    goodput = summary_of(teller, slo=slo)["goodput"]
    assert goodput["share"] == (None if share is None else pytest.approx(share))
    assert goodput["per_s"] == (None if share is None else pytest.approx(share * 3 / 2))


def test_what_is_not_completed_is_not_good() -> None:
    teller = Storyteller()
    teller.request("p/1/0", [Leg("s1")])
    offer(teller, "p/1/1", None)
    assert summary_of(teller, slo=Slo(ttft_ms=1000))["goodput"]["share"] == 0.5


def test_a_log_with_gaps_says_so(teller: Storyteller) -> None:
    del teller.envelopes[6]
    summary = summary_of(teller, facts=RunFacts(problems=("the end of the log is torn",)))
    assert summary["complete"] is False
    assert summary["events_missing"] == 1
    assert summary["incomplete_because"] == ["1 events missing", "the end of the log is torn"]


def test_a_log_without_its_end_says_so(teller: Storyteller) -> None:
    ended = [one for one in teller.envelopes if not isinstance(one.event, RunEnded)]
    summary = to_dict(summarise(ended))
    assert summary["incomplete_because"] == ["the log stops before run.ended"]
    assert summary["complete"] is False


def test_a_whole_log_is_complete(teller: Storyteller) -> None:
    summary = summary_of(teller)
    assert (summary["complete"], summary["ended"]) == (True, "all settled")


def test_repeated_events_count_once(teller: Storyteller) -> None:
    once = summary_of(teller)
    assert to_dict(summarise(teller.envelopes * 2)) == once


def test_facts_of_the_caller_win_over_the_log(teller: Storyteller) -> None:
    said = summary_of(teller)
    assert (said["run"], said["scenario"], said["seed"], said["kind"]) == ("r1", "mixed", 7, None)
    facts = RunFacts(
        run="r2", scenario="other", seed=0, kind="live", machine={"cores": 2, "vllm": "0.32.0"}
    )
    told = summary_of(teller, facts=facts)
    assert (told["run"], told["scenario"], told["seed"], told["kind"]) == ("r2", "other", 0, "live")
    assert told["machine"] == {"cores": 2, "vllm": "0.32.0"}


def test_each_replica_has_its_section(teller: Storyteller) -> None:
    teller.say("s1", 1, ReplicaLoad(replica="s1", load=Load(running=1, waiting=3)))
    teller.say("s1", 2, ReplicaLoad(replica="s1", load=Load(running=3)))
    teller.say("s1", 3, WorkerChanged(replica="s1", state="killed"))
    teller.say("s1", 4, WorkerChanged(replica="s1", state="ready"))
    lost = ReplicaChanged(replica="s1", state="lost", incarnation=1)
    teller.say("scheduler", 5, lost)
    section = summary_of(teller)["replicas"]["s1"]
    assert section["state"] == "lost"
    assert section["offers"] == ["decode"]
    assert (section["started"], section["completed"], section["lost"]) == (3, 2, 1)
    assert section["delegated"] == 1
    assert (section["running_mean"], section["running_max"], section["waiting_max"]) == (2.0, 3, 3)
    assert section["busy_share"] == 0.5
    assert section["worker_exits"] == 1
    assert section["output_tokens"] == 22
    quiet = summary_of(teller)["replicas"]["h1"]
    assert (quiet["running_mean"], quiet["running_max"], quiet["busy_share"]) == (None, None, None)
    assert quiet["e2e"]["count"] == 1


def test_troubles_are_counted(teller: Storyteller) -> None:
    teller.say("player", 1, FaultInjected(action="kill", target="s1"))
    teller.say("scheduler", 1, PolicyFailed(policy="x:Y", id="p/1/0", error="boom"))
    teller.say("scheduler", 1, BusTrouble(kind="malformed", detail="", count=3))
    teller.say("scheduler", 1, RequestRejected(id="p/1/0", code="stale", received_ns=-MS))
    summary = summary_of(teller)
    assert (summary["faults"], summary["policy_failures"]) == (1, 1)
    assert summary["bus_troubles"] == {"malformed": 3}
    assert summary["queue"]["max_ms"] == pytest.approx(11.0)


def test_the_file_is_json_with_the_schema_first(teller: Storyteller, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_summary(summarise(teller.envelopes), path)
    data = msgspec.json.decode(path.read_bytes())
    assert data == summary_of(teller)
    assert next(iter(data.items())) == ("schema", "anyserve.summary/1")
    assert [one.name for one in tmp_path.iterdir()] == ["summary.json"]


def test_without_a_run_the_duration_is_from_first_to_last_event() -> None:
    teller = Storyteller(clocks={"s1": ("far", 10**15)})
    teller.request("p/1/0", [Leg("s1")])
    assert summary_of(teller)["duration_s"] == pytest.approx(0.123)


def test_a_run_started_on_one_boot_and_ended_on_another_is_not_subtracted() -> None:
    events = [
        Envelope(t=0, source="p", incarnation=1, seq=0, event=RUN, boot="a"),
        Envelope(t=9 * S, source="q", incarnation=1, seq=0, event=RunEnded(reason=""), boot="b"),
    ]
    assert summarise(events).duration_s == 0


def test_percentiles_of_a_handful() -> None:
    times = distribution(np.array([1 * MS, 2 * MS, 3 * MS, 4 * MS]))
    assert (times.p50_ms, times.max_ms, times.mean_ms) == (2.5, 4.0, 2.5)
    assert times.p90_ms == pytest.approx(3.7)
    assert histogram_distribution({5 * MS: 0}) == Distribution()
