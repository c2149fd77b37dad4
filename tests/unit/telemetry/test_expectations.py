from __future__ import annotations

from typing import Any, Literal

import pytest

from anyserve.core.spec import Expectation
from anyserve.telemetry.expect import Verdict, evaluate, metric_paths

SUMMARY: dict[str, Any] = {
    "complete": True,
    "incomplete_because": [],
    "ended": "all settled",
    "requests": {"offered": 5, "completed": 5, "by_reason": {"queue_full": 2}},
    "ttft": {"p95_ms": 120.5, "p99_ms": None},
    "delegations": {"by_edge": {"decode->decode.heavy": 3}},
    "capabilities": {
        "decode": {"requests": {"completed": 2}},
        "decode.heavy": {"requests": {"completed": 3}},
    },
    "bus_troubles": {},
}
Op = Literal["==", "!=", "<", "<=", ">", ">="]


def judge(metric: str, op: Op, value: float | str, **changes: Any) -> tuple[Verdict, Any, str]:
    wanted = Expectation(metric=metric, op=op, value=value)
    (result,) = evaluate([wanted], SUMMARY | changes)
    return result.verdict, result.actual, result.note


@pytest.mark.parametrize(
    ("op", "holds"),
    [("==", False), ("!=", True), ("<", True), ("<=", True), (">", False), (">=", False)],
)
def test_every_operator(op: Op, holds: bool) -> None:
    verdict = Verdict.OK if holds else Verdict.FAILED
    assert judge("ttft.p95_ms", op, 200) == (verdict, 120.5, "")


def test_a_value_may_be_another_metric() -> None:
    assert judge("requests.completed", "==", "requests.offered")[0] is Verdict.OK
    assert judge("ttft.p95_ms", "<", "requests.offered")[0] is Verdict.FAILED


def test_a_plain_word_is_itself() -> None:
    assert judge("ended", "==", "stopped")[0] is Verdict.FAILED
    assert judge("ended", "==", "all settled")[0] is Verdict.OK


def test_names_with_dots_are_found() -> None:
    assert judge("capabilities.decode.heavy.requests.completed", "==", 3)[0] is Verdict.OK
    assert judge("capabilities.decode.requests.completed", "==", 2)[0] is Verdict.OK
    assert judge("delegations.by_edge.decode->decode.heavy", "==", 3)[0] is Verdict.OK


@pytest.mark.parametrize(
    "metric",
    ["requests.by_reason.no_replica", "delegations.by_edge.a->b.c", "bus_troubles.malformed"],
)
def test_what_never_happened_is_zero(metric: str) -> None:
    assert judge(metric, "==", 0) == (Verdict.OK, 0, "")


@pytest.mark.parametrize("metric", ["ttft.p98_ms", "nothing.at.all", "requests", "ended.x"])
def test_an_unknown_metric_is_not_passed(metric: str) -> None:
    verdict, _, note = judge(metric, "==", 0)
    assert verdict is Verdict.UNKNOWN
    assert f"no metric '{metric}'" in note


def test_an_unknown_metric_names_the_nearest() -> None:
    assert "did you mean 'ttft.p95_ms'?" in judge("ttft.p95", "<", 1)[2]
    assert judge("requests.completed", "==", "requests.offers")[0] is Verdict.UNKNOWN


def test_what_was_not_measured_is_failed_with_the_reason() -> None:
    assert judge("ttft.p99_ms", "<", 1) == (
        Verdict.FAILED,
        None,
        "nothing was measured for 'ttft.p99_ms'",
    )
    assert judge("requests.offered", "<", "ttft.p99_ms")[2].endswith("'ttft.p99_ms'")


def test_words_and_numbers_do_not_compare() -> None:
    assert "cannot be compared" in judge("ended", "<", 3)[2]


def test_on_an_incomplete_log_nothing_passes() -> None:
    changes = {"complete": False, "incomplete_because": ["3 events missing"]}
    verdict, actual, note = judge("requests.completed", "==", 5, **changes)
    assert (verdict, actual, note) == (Verdict.INCOMPLETE, 5, "incomplete: 3 events missing")
    assert judge("requests.completed", "==", 4, **changes)[0] is Verdict.FAILED
    changes = {"complete": False, "incomplete_because": []}
    assert "the log is not complete" in judge("requests.completed", "==", 5, **changes)[2]


def test_results_carry_the_text_as_written() -> None:
    written = Expectation(metric="ended", op="==", value="x", text="ended == x  # why")
    plain = Expectation(metric="ended", op="==", value="x")
    results = evaluate([written, plain], SUMMARY)
    assert [one.text for one in results] == ["ended == x  # why", "ended == x"]
    assert not any(one.passed for one in results)


def test_paths_are_listed() -> None:
    paths = metric_paths(SUMMARY)
    assert "capabilities.decode.heavy.requests.completed" in paths
    assert "incomplete_because" not in paths
