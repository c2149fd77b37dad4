"""vLLM's asynchronous scheduling, as on GPUs: steps are planned before those before them ended."""

from __future__ import annotations

import pytest
from own_process import said_by

from anyserve.runtime.engines.detect import VllmBuild, detect

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.skipif(detect().build is not VllmBuild.CPU, reason="needs vLLM's CPU build"),
]


def test_each_step_is_the_one_that_our_model_of_the_scheduler_planned() -> None:
    found = said_by("steps_ahead.py")

    assert found["ahead"]
    assert found["steps"] > 100
