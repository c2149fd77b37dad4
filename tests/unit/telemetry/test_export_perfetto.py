from __future__ import annotations

import io
import json
from collections import defaultdict
from typing import Any

import pytest

from anyserve.core.events import FaultInjected, PhaseStarted, ReplicaLoad, SchedulerLoad
from anyserve.core.messages import Load
from anyserve.telemetry.export.lanes import Lanes
from anyserve.telemetry.export.perfetto import REQUESTS, SCHEDULER, write_perfetto
from anyserve.telemetry.export.requests import traced_requests
from anyserve.telemetry.storyteller import Leg, Storyteller

MS = 1_000_000


@pytest.fixture
def records() -> list[dict[str, Any]]:
    teller = Storyteller()
    teller.register("s1", {"decode": 256})
    teller.register("h1", {"decode.heavy": None})
    for number in range(3):  # side by side in one replica
        leg = Leg("s1", scheduler_queue_ns=4 * MS, queue_ns=6 * MS)
        teller.request(f"p/1/{number}", [leg], intended_ns=number * MS)
    legs = [Leg("s1", routed=False, end="delegate"), Leg("h1", "decode.heavy")]
    end = teller.request("p/1/9", legs, intended_ns=5 * MS)
    teller.say("s1", end, ReplicaLoad(replica="s1", load=Load(running=3, kv_usage=0.5)))
    teller.say("scheduler", end, SchedulerLoad(queues={"decode": 2}, bound=1))
    teller.say("player", end, PhaseStarted(name="burst", planned_s=1.0))
    teller.say("player", end, FaultInjected(action="kill", target="s1"))
    file = io.StringIO()
    assert write_perfetto(teller.envelopes, traced_requests(teller.envelopes), file) == 4
    return list(json.loads(file.getvalue())["traceEvents"])


def test_slices_of_one_track_nest(records: list[dict[str, Any]]) -> None:
    tracks = defaultdict(list)
    for one in records:
        if one["ph"] == "X":
            assert one["ts"] >= 0
            assert one["dur"] >= 0
            tracks[one["pid"], one["tid"]].append((one["ts"], one["ts"] + one["dur"]))
    assert len(tracks) > 6
    for spans in tracks.values():
        open_ends: list[float] = []
        for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while open_ends and open_ends[-1] <= start + 1e-6:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1] + 1e-6
            open_ends.append(end)


def test_arrows_lead_from_the_wish_through_every_hop_to_the_end(
    records: list[dict[str, Any]],
) -> None:
    arrows = defaultdict(list)
    for one in sorted((one for one in records if one["ph"] in "stf"), key=lambda one: one["ts"]):
        arrows[one["id"]].append((one["ph"], one["pid"]))
    names = {one["pid"]: one["args"]["name"] for one in records if one["name"] == "process_name"}

    # h1 stands twice: its queue is one track, its slot another.
    delegated = [(step, names[pid]) for step, pid in arrows[4]]

    assert delegated == [
        ("s", "requests"), ("t", "replica s1"), ("t", "scheduler"), ("t", "replica h1"),
        ("t", "replica h1"), ("f", "requests"),
    ]  # fmt: skip
    assert all(steps[0][0] == "s" and steps[-1][0] == "f" for steps in arrows.values())


def test_requests_that_overlap_are_stacked(records: list[dict[str, Any]]) -> None:
    slots = {(one["pid"], one["args"]["name"]) for one in records if one["name"] == "thread_name"}
    named = {one["args"]["name"]: one["pid"] for one in records if one["name"] == "process_name"}

    assert {(named["replica s1"], f"slot {number}") for number in (1, 2, 3)} <= slots
    assert (named["replica h1"], "slot 2") not in slots
    assert (REQUESTS, "request 4") in slots


def test_loads_are_counters_and_faults_are_flags(records: list[dict[str, Any]]) -> None:
    counters = [one for one in records if one["ph"] == "C"]
    flags = {one["name"] for one in records if one["ph"] == "i"}

    assert {"running": 3, "waiting": 0} in [one["args"] for one in counters]
    assert [one["args"] for one in counters if one["pid"] == SCHEDULER] == [{"decode": 2}]
    assert {"phase burst", "fault: kill s1", "ready"} <= flags


def test_an_empty_log_is_an_empty_trace() -> None:
    file = io.StringIO()

    assert write_perfetto([], [], file) == 0
    assert all(one["ph"] == "M" for one in json.loads(file.getvalue())["traceEvents"])


def test_lanes_are_used_again() -> None:
    lanes = Lanes()

    assert [lanes.take(*span) for span in ((0, 10), (5, 8), (8, 9), (10, 11))] == [0, 1, 1, 0]
    assert lanes.count == 2
