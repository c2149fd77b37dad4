from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from anyserve.workload.fields import keys_at
from anyserve.workload.schema import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("60s", 60_000_000_000),
        ("250ms", 250_000_000),
        ("1.5s", 1_500_000_000),
        ("1m30s", 90_000_000_000),
        ("0s", 0),
        ("20us", 20_000),
        ("1h", 3_600_000_000_000),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "value",
    ["", "60", "s", "5 s", "-1s", "1d", "1e3s", "9" * 39 + "h", "9" * 99 + "s", 60, None, True],
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(PydanticCustomError):
        parse_duration(value)


@given(st.integers(0, 10**15))
def test_a_written_duration_reads_the_same(ns: int) -> None:
    whole = ns // 1000 * 1000
    assert parse_duration(format_duration(whole)) == whole


def test_keys_at_a_place() -> None:
    assert {"version", "name", "cluster"} <= keys_at(())
    assert {"policy", "order"} <= keys_at(("cluster", "scheduler"))
    assert {"attributes", "limits"} == keys_at(
        ("cluster", "replicas", "s1", "capabilities", "decode")
    )
    assert keys_at(("faults", 0, "kill")) == {"replica", "worker"}
    assert "for" in keys_at(("faults", 0))
    assert keys_at(("traffic", "streams", "x", "prompt_tokens", "uniform")) == {"min", "max"}
    assert keys_at(("cluster", "capabilities")) == set()
    assert keys_at(("nowhere", 3)) == set()
