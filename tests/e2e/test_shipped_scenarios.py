from __future__ import annotations

import pytest
from shipped import UP_S, ShippedScenarios

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(UP_S + 60)]


class TestShippedScenarios(ShippedScenarios):
    """With the build of vLLM that is installed."""
