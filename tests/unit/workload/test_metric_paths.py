"""The metrics that an expectation may name are those that a summary has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

from anyserve.telemetry.summary import Summary
from anyserve.workload.expectations import parse_expectation
from anyserve.workload.metrics import KnownMetrics, capability_paths, fixed_paths, replica_paths

NOT_NUMBERS = {"run", "scenario", "kind", "seed", "complete", "ended", "schema"}
"""What a summary says of a run that nobody compares."""
NOT_OFFERED = ("bus_troubles", "slo", "machine", "incomplete_because")
COUNTS = re.compile(r"by_(reason|edge)")


def leaves(struct: type[Any], prefix: str = "") -> Iterator[str]:
    for name, kind in get_type_hints(struct).items():
        path = f"{prefix}{name}"
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield from leaves(kind, f"{path}.")
        elif get_origin(kind) is dict:
            inner = get_args(kind)[1]
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                yield from leaves(inner, f"{path}.*.")
        elif get_origin(kind) is None or type(None) in get_args(kind):
            yield path


def offered() -> set[str]:
    names = [path for path in leaves(Summary) if path not in NOT_NUMBERS]
    return {path for path in names if not path.startswith(NOT_OFFERED)}


def test_every_metric_of_a_summary_may_be_named_and_no_other() -> None:
    known = {path for path in fixed_paths() if not COUNTS.search(path)}
    known |= {path for path in capability_paths("*") if not COUNTS.search(path)}
    known |= set(replica_paths("*"))
    summary = {path for path in offered() if not path.endswith(".state")}
    assert known == summary


def test_what_a_scenario_knows() -> None:
    known = KnownMetrics({"decode", "decode.heavy"}, {"s1"})
    for path in (
        "requests.completed",
        "requests.by_reason.too_long",
        "delegations.by_edge.decode->decode.heavy",
        "delegations.by_edge.decode.heavy->decode.heavy",
        "delegations.by_reason.overload",
        "capabilities.decode.heavy.ttft.p95_ms",
        "capabilities.decode.requests.completed",
        "replicas.s1.completed",
        "replicas.s1.ttft.p99_ms",
    ):
        assert path in known
    for path in (
        "requests",
        "requests.by_reason.nonsense",
        "delegations.by_edge.decode",
        "delegations.by_edge.decode->embedding",
        "capabilities.embedding.ttft.p95_ms",
        "replicas.s2.completed",
        "replicas.s1",
        "replicas",
        "",
    ):
        assert path not in known
        assert known.hint(path)


def test_hints_name_the_nearest() -> None:
    known = KnownMetrics({"decode"}, {"s1", "s2"})
    assert known.hint("ttft.p95") == "did you mean 'ttft.p95_ms'?"
    assert known.hint("replicas.s3.completed") == "no replica 's3'; known: s1, s2"
    assert known.hint("replicas.s1.complete") == "did you mean 'replicas.s1.completed'?"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("requests.failed == 0", ("requests.failed", "==", 0.0)),
        ("  ttft.p95_ms   <  1.5e3 ", ("ttft.p95_ms", "<", 1500.0)),
        ("a.b != c.d", ("a.b", "!=", "c.d")),
        (
            "delegations.by_edge.decode->decode.heavy >= 1",
            ("delegations.by_edge.decode->decode.heavy", ">=", 1.0),
        ),
    ],
)
def test_expectations(text: str, parts: tuple[str, str, float | str]) -> None:
    made = parse_expectation(text, line=3)
    assert made is not None
    assert (made.metric, made.op, made.value) == parts
    assert (made.line, made.text) == (3, text.strip())


@pytest.mark.parametrize("text", ["", "a", "a <", "< 3", "a=3", "a = 3", "a<3", "a < 3 4", "a ≤ 3"])
def test_what_is_no_expectation(text: str) -> None:
    assert parse_expectation(text) is None
