from __future__ import annotations

import pytest
from embedding import Embedding

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]


class TestEmbeddingOnGpu(Embedding):
    """On a share of one GPU."""
