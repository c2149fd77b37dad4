"""Traces as they are published, and what is wrong with those that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from anyserve.errors import UsageError
from anyserve.workload.schema import Trace
from anyserve.workload.traces import TraceRow, read_trace

ROOT = Path(__file__).parents[3]
SECOND = 1_000_000_000
AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:10.0000000,7,1
"""
BURSTGPT = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
118.5,GPT-4,417,276,693,API log
"""
MOONCAKE = """\
{"timestamp": 1000, "input_length": 1100, "output_length": 6, "hash_ids": [0, 1, 2]}
{"timestamp": 3500, "input_length": 600, "output_length": 9, "hash_ids": [0, 7]}
"""


def rows(tmp_path: Path, text: str, **options: Any) -> list[TraceRow]:
    (tmp_path / "trace").write_text(text)
    return list(read_trace(Trace(file="trace", **options), tmp_path))


def test_azure_has_times_to_the_last_digit(tmp_path: Path) -> None:
    found = rows(tmp_path, AZURE)

    assert [row.at_ns for row in found] == [0, 52_000_000, 6_020_040_000]
    assert [row.segments for row in found] == [((None, 4808),), ((None, 3180),), ((None, 7),)]
    assert [row.output_tokens for row in found] == [10, 8, 1]


def test_burstgpt_leaves_out_what_the_service_failed_to_answer(tmp_path: Path) -> None:
    found = rows(tmp_path, BURSTGPT)

    assert [(row.at_ns, row.output_tokens) for row in found] == [(0, 18), (113_500_000_000, 276)]


def test_equal_blocks_of_mooncake_are_equal_texts(tmp_path: Path) -> None:
    first, second = rows(tmp_path, MOONCAKE)

    assert first.segments == (("0", 512), ("1", 512), ("2", 76))
    assert second.segments == (("0", 512), ("7", 88))
    assert second.at_ns == 2_500_000_000


def test_lengths_times_start_and_number_can_be_changed(tmp_path: Path) -> None:
    found = rows(tmp_path, AZURE, lengths=0.1, speed=2.0, start="50ms", limit=1)

    assert found == [TraceRow(0, ((None, 318),), 1)]
    assert [row.at_ns for row in rows(tmp_path, AZURE, speed=2.0)][1] == 26_000_000


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,4,4\n", "trace_invalid", ":2:"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "", ""),
        ('{"timestamp": 1}\n', "trace_invalid", ":1:"),
        ("a,b,c\n1,2,3\n", "trace_format", "a,b,c"),
    ],
)
def test_a_bad_file_is_told_by_its_line(tmp_path: Path, text: str, code: str, says: str) -> None:
    if not code:
        assert rows(tmp_path, text) == []
        return
    with pytest.raises(UsageError, match=says) as raised:
        rows(tmp_path, text)
    assert raised.value.code == code


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.csv"):
        list(read_trace(Trace(file="nowhere.csv"), Path("/")))


@pytest.mark.parametrize(
    ("name", "count"), [("azure_conv_2023.csv", 400), ("mooncake_synthetic.jsonl", 240)]
)
def test_the_shipped_excerpts_can_be_read(name: str, count: int) -> None:
    found = list(read_trace(Trace(file=name), ROOT / "scenarios" / "traces"))

    assert len(found) == count
    assert found[0].at_ns == 0
    assert all(row.output_tokens >= 1 for row in found)
