"""`/metrics` against what the summary of the same events says."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families as parse_text

from anyserve.core.events import (
    BusTrouble,
    Envelope,
    ReplicaChanged,
    ReplicaLoad,
    RequestOffered,
    RequestOutcome,
    SchedulerLoad,
    WorkerChanged,
)
from anyserve.core.messages import (
    Limits,
    Load,
    Offer,
    Registration,
    ReplicaState,
    SchedulerState,
)
from anyserve.telemetry.metrics import ClusterMetrics
from anyserve.telemetry.metrics.exposition import render
from anyserve.telemetry.metrics.fold import CLIENT_NAMES
from anyserve.telemetry.metrics.histograms import Histogram
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.summary import summarise

MS = 1_000_000


@pytest.fixture
def teller() -> Storyteller:
    """Plain, delegated, recovered; and one that was rejected."""
    teller = Storyteller()
    teller.register("s1", {"decode": 256})
    teller.register("h1", {"decode.heavy": None})
    teller.request("p/1/0", [Leg("s1", scheduler_queue_ns=4 * MS, queue_ns=6 * MS)])
    entry = Leg("s1", routed=False, end="delegate", queue_ns=2 * MS)
    teller.request("p/1/1", [entry, Leg("h1", "decode.heavy")], client_delay_ns=5 * MS)
    teller.request("p/1/2", [Leg("s1", end="lost"), Leg("s1")])
    turn_away(teller, "p/1/3", "decode", "queue_full")
    return teller


def turn_away(teller: Storyteller, name: str, capability: str, code: str) -> None:
    offered = RequestOffered(
        id=name,
        capability=capability,
        prompt_tokens=8,
        max_tokens=4,
        entry="scheduler",
        intended_ns=0,
    )
    teller.say("player", 0, offered)
    outcome = RequestOutcome(id=name, outcome="rejected", end_ns=MS, code=code)
    teller.say("player", MS, outcome)


def folded(envelopes: list[Envelope]) -> ClusterMetrics:
    metrics = ClusterMetrics()
    for envelope in envelopes:
        metrics.apply(envelope)
    return metrics


class Scrape:
    """What a scraper reads."""

    def __init__(self, metrics: ClusterMetrics) -> None:
        self.text = render(metrics).decode()
        self.families: dict[str, Metric] = {each.name: each for each in parse_text(self.text)}

    def __call__(self, name: str, **labels: str) -> float | None:
        found = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None


def test_counts_are_those_of_the_summary(teller: Storyteller) -> None:
    scrape = Scrape(folded(teller.envelopes))
    summary = summarise(teller.envelopes)

    assert scrape("anyserve_requests_offered_total") == summary.requests.offered == 4
    assert scrape("anyserve_requests_total", outcome="completed") == summary.requests.completed == 3
    assert scrape("anyserve_requests_total", outcome="rejected", code="queue_full") == 1
    assert summary.delegations.by_edge == {"decode->decode.heavy": 1}
    edge = {"from_capability": "decode", "to_capability": "decode.heavy", "reason": "too_long"}
    assert scrape("anyserve_delegations_total", **edge) == 1
    assert scrape("anyserve_reentries_total", kind="lost") == summary.recoveries.total == 1
    assert scrape("anyserve_output_tokens_total") == summary.tokens.output
    assert scrape("anyserve_hops_total", replica="h1", delegated="true") == 1


def test_latencies_are_those_of_the_summary(teller: Storyteller) -> None:
    scrape = Scrape(folded(teller.envelopes))
    summary = summarise(teller.envelopes)

    for name, expected in (
        ("anyserve_time_to_first_token_seconds", summary.ttft),
        ("anyserve_time_per_output_token_seconds", summary.tpot),
        ("vllm:time_to_first_token_seconds", summary.ttft),
        ("gen_ai_server_time_to_first_token_seconds", summary.ttft),
    ):
        assert scrape(f"{name}_count") == expected.count == 3
        assert expected.mean_ms is not None
        assert scrape(f"{name}_sum") == pytest.approx(expected.mean_ms * 3 / 1000)
    assert scrape("anyserve_request_duration_seconds_count", outcome="completed") == 3
    assert scrape("gen_ai_server_request_duration_seconds_count", error_type="queue_full") == 1


def test_waits_are_told_apart_by_where_they_were(teller: Storyteller) -> None:
    scrape = Scrape(folded(teller.envelopes))

    assert scrape("anyserve_queue_time_seconds_sum", place="scheduler") == pytest.approx(0.004)
    assert scrape("anyserve_queue_time_seconds_sum", place="replica") == pytest.approx(0.008)


def test_a_request_in_flight_is_in_its_stage() -> None:
    teller = Storyteller()
    teller.register("s1", {"decode": 256})
    teller.request("p/1/0", [Leg("s1")])
    before = [one for one in teller.envelopes if not isinstance(one.event, RequestOutcome)]

    scrape = Scrape(folded(before))

    assert scrape("anyserve_requests_in_flight", stage="streaming") == 1
    assert scrape("anyserve_requests_in_flight") == 1
    assert Scrape(folded(teller.envelopes))("anyserve_requests_in_flight") is None


def test_gauges_follow_the_last_report(teller: Storyteller) -> None:
    teller.say("s1", MS, ReplicaLoad(replica="s1", load=Load(running=3, waiting=2, kv_usage=0.25)))
    teller.say("scheduler", MS, SchedulerLoad(queues={"decode": 5}, bound=3))
    teller.say("s1", MS, WorkerChanged(replica="s1", state="killed"))
    teller.say("s1", MS, BusTrouble(kind="malformed", detail="x", count=4))
    scrape = Scrape(folded(teller.envelopes))

    assert scrape("anyserve_replica_running", replica="s1") == 3
    assert scrape("vllm:num_requests_running", engine="s1", model_name="decode") == 3
    assert scrape("vllm:num_requests_waiting", engine="s1") == 2
    assert scrape("vllm:num_requests_waiting", engine="scheduler", model_name="decode") == 5
    assert scrape("vllm:kv_cache_usage_perc") == 0.25
    assert scrape("anyserve_queue_depth", capability="decode") == 5
    assert scrape("anyserve_worker_exits_total", replica="s1") == 1
    assert scrape("anyserve_bus_troubles_total", kind="malformed") == 4
    assert scrape("anyserve_replica_state", replica="s1", state="ready") == 1
    assert scrape("anyserve_replica_state", replica="s1", state="lost") == 0


def test_names_that_clients_invent_share_a_label_beyond_a_limit(teller: Storyteller) -> None:
    for number in range(CLIENT_NAMES * 40):
        turn_away(teller, f"p/2/{number}", f"nonsense-{number}", "unknown_capability")
    metrics = folded(teller.envelopes)
    scrape = Scrape(metrics)

    family = scrape.families["anyserve_requests"]
    assert len({sample.labels["capability"] for sample in family.samples}) <= CLIENT_NAMES + 2
    assert scrape("anyserve_requests_total", code="unknown_capability") == CLIENT_NAMES * 40
    assert scrape("anyserve_requests_total", capability="decode", outcome="completed") == 3
    assert len(metrics.state.by_capability) <= metrics.state.memory.capabilities + 1


def test_a_label_that_is_no_label_does_not_break_the_text(teller: Storyteller) -> None:
    turn_away(teller, "p/1/9", 'de"co\\de\n', "unknown_capability")

    assert (
        Scrape(folded(teller.envelopes))("anyserve_requests_total", capability='de"co\\de\n') == 1
    )


def test_repeated_events_change_nothing(teller: Storyteller) -> None:
    once = Scrape(folded(teller.envelopes)).text

    assert Scrape(folded([*teller.envelopes, *teller.envelopes])).text == once


def test_what_was_said_before_we_listened_is_not_missing(teller: Storyteller) -> None:
    told = teller.envelopes
    late = [one for one in told if one.source != "scheduler" or one.seq > 2]
    assert folded(late).missing == 0

    hole = [one for one in told if (one.source, one.seq) != ("scheduler", 2)]
    assert folded(hole).missing == 1


def test_registrations_tell_what_was_said_before(teller: Storyteller) -> None:
    metrics = folded([one for one in teller.envelopes if not isinstance(one.event, ReplicaChanged)])
    offer = Offer(capability="decode", limits=Limits(max_tokens=256))
    said = Registration(
        replica="s1", incarnation=1, connection=1, revision=1, state=ReplicaState.READY,
        offers=[offer], concurrency=3,
    )  # fmt: skip
    metrics.registered(said)
    state = SchedulerState(
        epoch=4, incarnation=1, ladder={}, capabilities=["decode"], delegation_limit=1
    )
    metrics.scheduled(state)
    older = msgspec.structs.replace(said, incarnation=0, state=ReplicaState.LOST)
    metrics.registered(older)
    scrape = Scrape(metrics)

    assert scrape("anyserve_replica_slots", replica="s1") == 3
    assert scrape("anyserve_replica_state", replica="s1", state="ready") == 1
    assert scrape("anyserve_scheduler_epoch") == 4


def test_an_empty_cluster_has_metrics_too() -> None:
    scrape = Scrape(ClusterMetrics())

    assert scrape("anyserve_events_total") == 0
    assert scrape("anyserve_scheduler_epoch") is None
    assert scrape("anyserve_build_info") == 1


def test_a_bucket_holds_its_upper_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(1.0)
    histogram.observe(1.5, count=2)
    histogram.observe(9.0)

    assert histogram.buckets() == [("1.0", 1.0), ("2.0", 3.0), ("+Inf", 4.0)]
    assert histogram.total == 13.0
