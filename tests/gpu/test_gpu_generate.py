from __future__ import annotations

import pytest
from generating import Generating

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]


class TestGeneratingOnGpu(Generating):
    """On a share of one GPU."""
