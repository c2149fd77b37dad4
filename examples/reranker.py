"""A reranker made of an embedding capability.

A client sends a query and documents. The handler asks the capability `embedding` for a vector of
each, all at once, and sorts the documents by their cosine similarity to the query. It knows neither
which replica embeds nor how many there are. `reranker.yaml`, beside this file, runs it.
"""

from __future__ import annotations

import asyncio
import math

import msgspec

from anyserve import App, Context, InvalidRequestError

app = App()


class Query(msgspec.Struct):
    """What a client sends."""

    query: str
    documents: list[str]
    top_n: int | None = None


class Ranked(msgspec.Struct):
    """One document: its place in the request, and how near it is to the query, -1 to 1."""

    index: int
    score: float


class Ranking(msgspec.Struct):
    """What a client gets: the nearest first."""

    results: list[Ranked]


class Vector(msgspec.Struct):
    """What an embedding engine answers."""

    embedding: list[float]


@app.capability("rerank")
async def rerank(ctx: Context, query: Query) -> Ranking:
    """Sort the documents by their similarity to the query."""
    if not query.documents:
        raise InvalidRequestError("there is nothing to rank", pointer="$.documents")
    texts = [query.query, *query.documents]
    asked = [ctx.call("embedding", text, result=Vector) for text in texts]
    wanted, *vectors = await asyncio.gather(*asked)
    scored = [
        Ranked(index, cosine(wanted.embedding, one.embedding)) for index, one in enumerate(vectors)
    ]
    scored.sort(key=lambda one: one.score, reverse=True)
    return Ranking(scored[: query.top_n])


def cosine(one: list[float], other: list[float]) -> float:
    """Cosine of the angle between two vectors."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other))
