"""vLLM's asynchronous scheduling, as on GPUs: steps are planned before those before them ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anyserve.runtime.engines.detect import VllmBuild, detect

SUPPORT = Path(__file__).parents[1] / "support"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.skipif(detect().build is not VllmBuild.CPU, reason="needs vLLM's CPU build"),
]


def test_each_step_is_the_one_that_our_model_of_the_scheduler_planned() -> None:
    done = subprocess.run(
        [sys.executable, SUPPORT / "steps_ahead.py"],
        env={**os.environ, "PYTHONPATH": "."},
        cwd=SUPPORT.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ahead"]
    assert found["steps"] > 100
