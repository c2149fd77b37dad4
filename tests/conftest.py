"""ANYSERVE_TEST_COMPILED=1: all tests run against the build of `anyserve compile`.

Tests that put something in the place of a method of `core` cannot, and fail then.
"""

from __future__ import annotations

import os

import pytest

from anyserve.compiled.use import Standing, switch_on

if os.environ.get("ANYSERVE_TEST_COMPILED"):
    standing = switch_on()  # before any test module imports what is compiled
    if standing is not Standing.IN_USE:
        pytest.exit(f"ANYSERVE_TEST_COMPILED: {standing.value}", returncode=2)
