"""The documentation's examples are valid, and it names every key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyserve.workload import schema
from anyserve.workload.load import parse_scenario
from anyserve.workload.schema import Section, arrivals, cluster, faults, file, sim, traffic

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_is_a_valid_scenario(example: str) -> None:
    assert parse_scenario(example).name


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


def _sections() -> Iterator[type[Section]]:
    for module in (schema, arrivals, cluster, faults, file, sim, traffic):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Section) and value is not Section:
                yield value


@pytest.mark.parametrize("section", sorted(set(_sections()), key=repr))
def test_every_key_is_documented(section: type[Section]) -> None:
    keys = {field.alias or name for name, field in section.model_fields.items()}
    missing = {key for key in keys if not re.search(rf"`[^`\n]*\b{re.escape(key)}\b", TEXT)}
    assert not missing
