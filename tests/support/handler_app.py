"""Handlers for tests: each shows one thing that a handler can do, or do wrong."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from pydantic import BaseModel

from anyserve import App, CallError, Context, InvalidRequestError, ObjRef

app = App()


def leave(note: str, text: str) -> None:
    """Write a note that is whole as soon as it exists: tests wait for that, and read it."""
    draft = Path(f"{note}.draft")
    draft.write_text(text)
    draft.replace(note)


class Point(msgspec.Struct):
    x: int
    y: int = 0


@dataclass
class Segment:
    a: Point
    b: Point


class Named(BaseModel):
    name: str
    tags: list[str] = []


@app.capability("sum", unit="m")
async def add(ctx: Context, segment: Segment) -> Point:
    assert ctx.attributes in ({}, {"unit": "m"})
    return Point(segment.a.x + segment.b.x, segment.a.y + segment.b.y)


@app.capability("name")
def name(named: Named) -> dict[str, Any]:
    """A plain function: it runs in a thread, so it may sleep."""
    time.sleep(0.01)
    return {"hello": named.name, "tags": len(named.tags)}


@app.capability("count")
async def count(upto: int) -> AsyncIterator[int]:
    for number in range(upto):
        yield number
        if number % 16 == 0:
            await asyncio.sleep(0)


@app.capability("count.plain")
def count_plain(upto: int) -> Iterator[int]:
    yield from range(upto)


@app.capability("fail")
async def fail(how: str) -> str:
    if how == "invalid":
        raise InvalidRequestError("not that one", pointer="$.how")
    if how == "exit":
        raise SystemExit(3)
    if how == "type":
        return 5  # type: ignore[return-value]
    raise ValueError(f"cannot {how}")


@app.capability("die")
async def die(ctx: Context) -> None:
    ctx.log.info("this worker ends now")
    os._exit(7)


@app.capability("live.die")
async def live_die(upto: int) -> AsyncIterator[int]:
    for number in range(upto):
        yield number
    await asyncio.sleep(0.2)  # the items are on their way
    os._exit(7)


@app.capability("wait")
async def wait(ctx: Context, note: str) -> None:
    """Waits for ever; writes down that it was cancelled."""
    Path(f"{note}.began").touch()  # noqa: ASYNC240 - a test's file
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        leave(note, f"cancelled={ctx.cancelled}")
        raise


@app.capability("wait.plain")
def wait_plain(ctx: Context, note: str) -> None:
    Path(f"{note}.began").touch()
    while not ctx.cancelled:
        time.sleep(0.005)
    leave(note, "cancelled=True")


@app.capability("facts")
async def facts(ctx: Context) -> dict[str, Any]:
    return {
        "id": ctx.request_id,
        "depth": ctx.depth,
        "priority": ctx.priority,
        "left_s": ctx.remaining_s,
    }


@app.capability("relay")
async def relay(ctx: Context, asked: dict[str, Any]) -> Any:
    """Calls what it is told to; says what came, or how it ended."""
    options = {key: asked[key] for key in ("timeout_s", "priority") if key in asked}
    try:
        if asked.get("stream"):
            found = ctx.stream(asked["to"], asked.get("payload"), **options)
            return [item async for item in found]
        return await ctx.call(asked["to"], asked.get("payload"), **options)
    except CallError as error:
        return {"code": error.code, "message": error.message}


@app.capability("relay.plain")
def relay_plain(ctx: Context, asked: dict[str, Any]) -> Any:
    return ctx.wait(ctx.call(asked["to"], asked.get("payload")))


@app.capability("relay.live")
async def relay_live(ctx: Context, asked: dict[str, Any]) -> AsyncIterator[Any]:
    async for item in ctx.stream(asked["to"], asked.get("payload")):
        yield item


@app.capability("nest")
async def nest(ctx: Context) -> list[int]:
    """Calls itself until it may not any more; how deep it came."""
    try:
        return [ctx.depth, *await ctx.call("nest", result=list[int])]
    except CallError as error:
        return [ctx.depth] if error.code == "call_depth" else [-1]


@app.capability("alone")
async def alone(ctx: Context) -> str:
    """Calls what only its own replica offers."""
    try:
        await ctx.call("alone")
    except CallError as error:
        return error.code
    return "served"


@app.capability("make")
async def make(ctx: Context, size: int) -> ObjRef:
    return await ctx.objects.put(np.arange(size, dtype=np.int64), ttl_s=60)


@app.capability("look")
async def look(ctx: Context, ref: ObjRef) -> dict[str, Any]:
    array = await ctx.objects.get(ref, verify=True)
    found = await ctx.objects.lookup(ref.id)
    return {"sum": int(array.sum()), "writable": array.flags.writeable, "same": found == ref}


@app.capability("long")
async def long(size: int) -> str:
    return "x" * size


@app.capability("length")
async def length(text: str) -> int:
    return len(text)


@app.worker(capability="warm", model="w1")
class Warm:
    """Counts its requests, and says at the end that it stops."""

    def __init__(self) -> None:
        self.seen = 0
        self.note: str | None = None
        self.started = False

    async def on_start(self) -> None:
        self.started = True

    async def handle(self, ctx: Context, note: str | None) -> list[Any]:
        self.seen += 1
        self.note = note
        return [self.started, self.seen]

    def on_stop(self) -> None:
        if self.note:
            leave(self.note, "stopped")
