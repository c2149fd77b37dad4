"""What all tests share: none fails for being slow, and ANYSERVE_TEST_COMPILED=1 lets all of them
run against the build of `anyserve compile`. Tests that encode messages, or put something in the
place of a method of `core`, fail then.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from anyserve.compiled.use import Standing, switch_on

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

if os.environ.get("ANYSERVE_TEST_COMPILED"):
    standing = switch_on()  # before any test module imports what is compiled
    if standing is not Standing.IN_USE:
        pytest.exit(f"ANYSERVE_TEST_COMPILED: {standing.value}", returncode=2)
