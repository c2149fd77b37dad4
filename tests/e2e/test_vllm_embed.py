from __future__ import annotations

import pytest
from embedding import Embedding

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]


class TestEmbedding(Embedding):
    """With the build of vLLM that is installed."""
