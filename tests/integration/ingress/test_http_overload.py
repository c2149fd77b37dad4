"""More at once than there is room for: exact counts of who is served, told to come back, or sent up
the ladder."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from doors import Reply, connect, doors_of, hang_up, overload_spec, read_reply, request_bytes
from live import LiveCluster

from anyserve.core.events import RequestDelegated

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

BODY = {"model": "decode", "prompt": "a", "max_tokens": 16}


async def all_at_once(url: str, count: int) -> list[Reply]:
    """Every connection stands before the first request is sent."""
    ends = [await connect(url) for _ in range(count)]
    for _, writer in ends:
        writer.write(request_bytes("/v1/completions", BODY))
    replies = [await read_reply(reader) for reader, _ in ends]
    await hang_up()
    return replies


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def narrow() -> AsyncIterator[LiveCluster]:
    cluster = await LiveCluster(overload_spec()).up()
    yield cluster
    await cluster.close()


async def test_of_32_at_once_4_run_4_wait_and_24_are_told_when_to_come_back(
    narrow: LiveCluster,
) -> None:
    url = (await doors_of(narrow))[""]
    for _ in range(3):
        replies = await all_at_once(url, 32)
        assert Counter(reply.status for reply in replies) == {200: 8, 429: 24}
        for reply in replies:
            if reply.status == 429:
                assert reply.error["code"] == "queue_full"
                assert int(reply.headers["retry-after"]) >= 1


async def test_of_32_at_one_replica_all_are_served_by_one_delegation_at_most(
    narrow: LiveCluster,
) -> None:
    url = (await doors_of(narrow))["s1"]
    replies = await all_at_once(url, 32)
    assert {reply.status for reply in replies} == {200}
    served = Counter(reply.headers["x-anyserve-replica"] for reply in replies)
    assert served == {"s1": 8, "h1": 24}
    assert {reply.headers["x-anyserve-hops"] for reply in replies} == {"1", "2"}
    said = narrow.watcher.find(RequestDelegated)
    assert max(Counter(one.id for one in said).values()) == 1
    assert {one.reason for one in said} == {"overload"}
