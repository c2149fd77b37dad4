"""A thinned stream: whole requests by lot, exact sums of the others, no false gaps."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import fields

import msgspec

from anyserve.core.events import Envelope, ReplicaLoad, StreamThinned
from anyserve.core.messages import Load
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.thinning import CALM_NS, EVERY_NS, Thinner
from anyserve.telemetry.views import Snapshot

MS = 1_000_000
KINDS = (
    [Leg("s1")],
    [Leg("s1", end="delegate", routed=False), Leg("h1", capability="decode.heavy")],
    [Leg("s1", end="failed")],
    [Leg("s1", end="lost"), Leg("h1", capability="decode.heavy")],
)


def story(count: int, *, gap_ns: int = MS) -> list[Envelope]:
    """Many requests side by side, with every kind of fate."""
    teller = Storyteller()
    teller.register("s1", {"decode": 512})
    teller.register("h1", {"decode.heavy": 2048})
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        teller.request(f"player/1/{number}", kind, intended_ns=number * gap_ns)
    numbers: Counter[str] = Counter()
    heard = []
    for one in sorted(teller.envelopes, key=lambda one: one.t):
        # The teller numbers request by request; a process numbers as it speaks.
        heard.append(msgspec.structs.replace(one, seq=numbers[one.source]))
        numbers[one.source] += 1
    return heard


def thinned(envelopes: list[Envelope], limit_per_s: float) -> tuple[list[Envelope], Thinner]:
    """As an observer hears it: in batches of 50 ms, with a tick every 250 ms."""
    thinner = Thinner("observer-1", 1, "b", limit_per_s=limit_per_s)
    batches: dict[int, list[Envelope]] = defaultdict(list)
    for one in envelopes:
        batches[one.t // (50 * MS)].append(one)
    passed: list[Envelope] = []
    ticked_ns = 0
    for at, batch in sorted(batches.items()):
        now_ns = (at + 1) * 50 * MS
        passed += thinner.take(batch)
        if now_ns - ticked_ns >= EVERY_NS:
            passed += thinner.tick(now_ns)
            ticked_ns = now_ns
    return passed + thinner.tick(ticked_ns + EVERY_NS), thinner


def folded(envelopes: list[Envelope]) -> tuple[Snapshot, Reducer]:
    reducer = Reducer()
    reducer.apply_all(envelopes)
    return reducer.snapshot(), reducer


def test_below_the_limit_all_passes_as_it_is() -> None:
    envelopes = story(40)
    passed, thinner = thinned(envelopes, 1e9)
    assert passed == envelopes
    assert thinner.one_in == 1


def test_above_the_limit_totals_are_exact_and_requests_are_whole_or_not_there() -> None:
    envelopes = story(2000)
    passed, thinner = thinned(envelopes, 2000)
    assert thinner.one_in > 1
    assert len(passed) < len(envelopes) / 2

    whole, _ = folded(envelopes)
    part, reducer = folded(passed)
    for name in {field.name for field in fields(whole.counters)} - {"events"}:
        assert getattr(part.counters, name) == getattr(whole.counters, name), name
    assert part.by_code == whole.by_code
    assert part.routing == whole.routing
    assert part.in_flight == whole.in_flight == 0
    assert part.events_missing == 0
    assert reducer.delegations == folded(envelopes)[1].delegations
    assert [(q.capability, q.offered, q.completed, q.failed, q.delegated) for q in part.queues] == [
        (q.capability, q.offered, q.completed, q.failed, q.delegated) for q in whole.queues
    ]
    for mine, theirs in zip(part.replicas, whole.replicas, strict=True):
        for name in ("started", "completed", "failed", "delegated_in", "delegated_out", "lost"):
            assert getattr(mine, name) == getattr(theirs, name), (mine.id, name)
    assert sum(part.series.offered) == sum(whole.series.offered)

    said: dict[str, list[Envelope]] = defaultdict(list)
    told: dict[str, list[Envelope]] = defaultdict(list)
    for stream, by_id in ((envelopes, said), (passed, told)):
        for one in stream:
            request_id = getattr(one.event, "id", None)
            if request_id is not None:
                by_id[request_id].append(one)
    assert 0 < len(told) < len(said)
    assert all(told[request_id] == said[request_id] for request_id in told)


def test_the_share_is_said_and_shown() -> None:
    passed, thinner = thinned(story(2000), 2000)
    part, _ = folded(passed)
    said = [one.event for one in passed if isinstance(one.event, StreamThinned)]
    assert any(one.changed for one in said)
    assert part.one_in == thinner.one_in
    assert any("can be told" in notice.text for notice in part.notices)


def test_what_is_truly_missing_stays_missing() -> None:
    envelopes = story(2000)
    lost = set(random.Random(3).sample(range(len(envelopes)), 25))
    heard = [one for at, one in enumerate(envelopes) if at not in lost]
    highest: dict[tuple[str, int], int] = {}
    for one in heard:
        highest[one.source, one.incarnation] = max(one.seq, highest.get((one.source, 1), 0))
    missing = sum(
        envelopes[at].seq < highest[envelopes[at].source, envelopes[at].incarnation] for at in lost
    )
    passed, _ = thinned(heard, 2000)
    assert folded(passed)[0].events_missing == missing


def test_when_it_is_calm_again_more_requests_are_told_step_by_step() -> None:
    _, thinner = thinned(story(2000), 2000)
    one_in, now_ns = thinner.one_in, 10**12
    steps = [one_in]
    while thinner.one_in > 1:
        now_ns += EVERY_NS
        thinner.tick(now_ns)
        if thinner.one_in != steps[-1]:
            steps.append(thinner.one_in)
        assert now_ns < 10**12 + 40 * CALM_NS
    assert steps == [one_in >> step for step in range(len(steps))]


def test_what_is_not_about_a_request_always_passes_and_repeats_never_do() -> None:
    thinner = Thinner("observer-1", 1, "b", limit_per_s=0.001)
    loads = [
        Envelope(
            t=n, source="s1", incarnation=1, seq=n, event=ReplicaLoad(replica="s1", load=Load())
        )
        for n in range(10)
    ]
    assert thinner.take(loads) == loads
    assert thinner.take(loads) == []
