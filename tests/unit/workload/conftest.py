from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from anyserve.workload.load import parse_scenario
from anyserve.workload.problems import Problem, ScenarioInvalid

BASE = """\
version: 1
name: base
cluster:
  capabilities:
    decode: {upgrade: decode.heavy}
    decode.heavy: {}
    embedding: {}
  replicas:
    s1:
      capabilities: [decode]
      engine: {model: smollm2-135m, max_model_len: 512}
    h1:
      capabilities: [decode.heavy]
      engine: {model: smollm2-135m, max_model_len: 2048}
    e:
      count: 2
      capabilities: [embedding]
      engine: {model: minilm}
traffic:
  phases:
    - {name: calm, duration: 10s}
    - {name: burst, duration: 5s, scale: 2}
  streams:
    chat: {capability: decode, rate: 1, prompt_tokens: 32, output_tokens: 8}
    search: {capability: embedding, rate: 1, prompt_tokens: 16}
faults:
  - {at: 1s, kill: {worker: s1}}
expect:
  - requests.completed == requests.offered
"""

ProblemsOf = Callable[..., list[Problem]]


@pytest.fixture
def base() -> str:
    """A valid scenario that uses a little of everything."""
    return BASE


@pytest.fixture
def problems_with() -> ProblemsOf:
    """The problems of the base scenario after `--set`s; none where it stays valid."""

    def problems(*overrides: str, text: str = BASE, **_: Any) -> list[Problem]:
        try:
            parse_scenario(text, overrides=overrides)
        except ScenarioInvalid as invalid:
            return invalid.problems
        return []

    return problems
