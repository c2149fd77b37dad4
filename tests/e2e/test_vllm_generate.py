from __future__ import annotations

import pytest
from generating import Generating

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]


class TestGenerating(Generating):
    """With the build of vLLM that is installed."""
