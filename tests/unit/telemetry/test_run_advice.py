"""The advisor's rules: each speaks where it should, and only there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from anyserve.telemetry.advisor import RULES, advise
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.views import (
    EngineTimes,
    LedgerEntry,
    Level,
    LoadPoint,
    QueueView,
    ReplicaView,
    Snapshot,
)

S = 1_000_000_000
NOW = 1000 * S


def _replica(**changes: Any) -> ReplicaView:
    plain: dict[str, Any] = {
        "id": "r1", "state": "ready", "incarnation": 1, "offers": {"decode": None},
        "concurrency": 4, "entry_queue": 8, "engine": "echo", "detail": "", "progress": None,
        "changed_ns": 0, "worker": "ready", "worker_pid": 1, "worker_detail": "", "running": 0,
        "waiting": 0, "kv_usage": 0.1, "tokens_per_s": 0.0, "service_ms": None,
        "ttft_p95_ms": None, "held": 0, "started": 0, "completed": 0, "failed": 0,
        "delegated_in": 0, "delegated_out": 0, "lost": 0, "history": (),
    }  # fmt: skip
    return ReplicaView(**{**plain, **changes})


def _queue(**changes: Any) -> QueueView:
    plain: dict[str, Any] = {
        "capability": "decode", "waiting": 0, "queued": 0, "offered": 0, "completed": 0,
        "failed": 0, "rejected": 0, "delegated": 0,
    }  # fmt: skip
    return QueueView(**{**plain, **changes})


def _snapshot(*replicas: ReplicaView, queues: tuple[QueueView, ...] = (), **changes: Any) -> (
    Snapshot
):  # fmt: skip
    empty = Reducer().snapshot()
    counters = replace(empty.counters, **changes.pop("counters", {}))
    plain = {"now_ns": NOW, "replicas": replicas, "queues": queues, "counters": counters}
    return replace(empty, **{**plain, **changes})


def _full(seconds: int) -> tuple[LoadPoint, ...]:
    return tuple(LoadPoint(NOW - (seconds - n) * S, 0, 4) for n in range(seconds + 1))


def _entries(count: int, reason: str) -> tuple[LedgerEntry, ...]:
    return tuple(
        LedgerEntry(n, f"p/1/{n}", "delegate", reason, "", "a", "a", "r1", "r2", None, None)
        for n in range(count)
    )


_times = EngineTimes(50, 0.0, 900.0, 100.0, 300.0)

CASES: dict[str, tuple[Snapshot, Snapshot]] = {
    "AS-ADV-01": (
        _snapshot(_replica(state="draining"), queues=(_queue(queued=2),)),
        _snapshot(_replica(), queues=(_queue(queued=2),)),
    ),
    "AS-ADV-02": (
        _snapshot(_replica(state="lost", changed_ns=NOW - 5 * S)),
        _snapshot(_replica(state="lost", changed_ns=NOW - 4 * S)),
    ),
    "AS-ADV-03": (
        _snapshot(_replica(running=4, history=_full(20)), queues=(_queue(queued=1),)),
        _snapshot(_replica(running=4, history=_full(19)), queues=(_queue(queued=1),)),
    ),
    "AS-ADV-04": (
        _snapshot(_replica(), queues=(_queue(queued=5),)),
        _snapshot(_replica(), queues=(_queue(queued=4),)),
    ),
    "AS-ADV-05": (
        _snapshot(
            counters={"offered": 20, "delegated_requests": 11}, ledger=_entries(9, "not_registered")
        ),
        _snapshot(
            counters={"offered": 20, "delegated_requests": 11}, ledger=_entries(9, "overload")
        ),
    ),
    "AS-ADV-06": (_snapshot(_replica(kv_usage=0.9)), _snapshot(_replica(kv_usage=0.89))),
    "AS-ADV-07": (
        _snapshot(counters={"offered": 100, "rejected": 2}, by_code={"queue_full": 2}),
        _snapshot(counters={"offered": 300, "rejected": 2}, by_code={"queue_full": 2}),
    ),
    "AS-ADV-08": (
        _snapshot(_replica(times=_times)),
        _snapshot(_replica(times=replace(_times, engine_wait_ms=400.0))),
    ),
    "AS-ADV-09": (_snapshot(counters={"policy_failures": 1}), _snapshot()),
    "AS-ADV-10": (_snapshot(events_missing=1), _snapshot()),
    "AS-ADV-11": (
        _snapshot(
            _replica(state="draining", changed_ns=NOW - 30 * S),
            _replica(id="r2"),
            queues=(_queue(queued=1),),
        ),
        _snapshot(
            _replica(state="draining", changed_ns=NOW - 30 * S, running=1),
            _replica(id="r2"),
            queues=(_queue(queued=1),),
        ),
    ),
    "AS-ADV-12": (_snapshot(_replica(lost=3)), _snapshot(_replica(lost=2))),
}


@pytest.mark.parametrize("code", CASES)
def test_a_rule_speaks_where_it_should_and_only_there(code: str) -> None:
    speaks, silent = CASES[code]
    assert code in [one.code for one in advise(speaks)]
    assert code not in [one.code for one in advise(silent)]


def test_every_rule_has_a_case_and_a_code_of_its_own() -> None:
    assert [rule.code for rule in RULES] == sorted(CASES)


def test_a_quiet_cluster_gets_no_advice() -> None:
    assert advise(_snapshot(_replica(), queues=(_queue(),))) == ()


def test_errors_come_first_and_every_advice_names_a_knob() -> None:
    def order(pick: Callable[[Any], object], snapshot: Snapshot) -> list[object]:
        return [pick(one) for one in advise(snapshot)]

    both = _snapshot(
        _replica(state="lost", changed_ns=0), events_missing=3, queues=(_queue(queued=9),)
    )
    levels = order(lambda one: one.level, both)
    assert levels[:2] == [Level.ERROR, Level.ERROR]
    assert Level.ERROR not in levels[2:]
    assert all(order(lambda one: one.knob, both))
