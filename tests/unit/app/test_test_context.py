"""The context that users test their handlers with."""

from __future__ import annotations

import pytest

from anyserve import CallError, ObjectError
from anyserve.app.testing import TestContext


async def test_calls_are_answered_by_functions_and_kept() -> None:
    async def later(payload: object) -> dict[str, object]:
        return {"got": payload}

    ctx = TestContext({"now": lambda payload: [payload, 1], "later": later}, deadline_s=60)

    assert await ctx.call("now", ("a",), result=list[object]) == [["a"], 1]
    assert await ctx.call("later", 3) == {"got": 3}
    assert [item async for item in ctx.stream("now", 0)] == [0, 1]
    assert ctx.calls == [("now", ["a"]), ("later", 3), ("now", 0)]
    assert 0 < (ctx.remaining_s or 0) <= 60
    assert (TestContext().remaining_s, ctx.cancelled) == (None, False)
    with pytest.raises(CallError, match="no answer for other"):
        await ctx.call("other")


async def test_objects_are_kept_as_they_are() -> None:
    ctx = TestContext()
    ref = await ctx.objects.put(b"data", ttl_s=3)

    assert await ctx.objects.get(ref) == b"data"
    assert (ref.size, await ctx.objects.lookup(ref.id)) == (4, ref)
    assert await ctx.objects.lookup("x") is None
    with pytest.raises(ObjectError, match="is gone"):
        await TestContext().objects.get(ref)


def test_plain_handlers_wait_outside_of_any_loop() -> None:
    ctx = TestContext({"one": lambda _: 1})

    assert ctx.wait(ctx.call("one")) == 1
