"""One served cluster for all tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

pytest.register_assert_rewrite("doors")

from doors import doors_of, hang_up, served_spec  # noqa: E402 - after its asserts explain themselves
from live import LiveCluster  # noqa: E402


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def served() -> AsyncIterator[LiveCluster]:
    live = await LiveCluster(served_spec()).up()
    yield live
    await live.close()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def urls(served: LiveCluster) -> dict[str, str]:
    return await doors_of(served)


@pytest_asyncio.fixture(autouse=True, loop_scope="package")
async def _hang_up() -> AsyncIterator[None]:
    yield
    await hang_up()
