"""Two stages behind one capability: summarise a text, then embed the summary.

`digest` waits for both and answers once. `digest.live` tells what happens while it happens: a piece
for each token of the summary, then the vector. Both call other capabilities through the scheduler,
so deadline, priority and trace are the client's own. `pipeline.yaml` runs them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from anyserve import App, Context

app = App()


class Document(msgspec.Struct):
    """What a client sends. `words` is about how long the summary may be."""

    text: str
    words: int = 24


class Digest(msgspec.Struct):
    """What a client gets."""

    summary: str
    embedding: list[float]


class Summary(msgspec.Struct):
    """What a generating engine answers: its whole text, or a piece of it."""

    text: str


class Vector(msgspec.Struct):
    """What an embedding engine answers."""

    embedding: list[float]


@app.capability("digest")
async def digest(ctx: Context, document: Document) -> Digest:
    """Summarise, then embed."""
    summary = await ctx.call("summarise", request_for(document), result=Summary)
    vector = await ctx.call("embedding", summary.text or document.text, result=Vector)
    ctx.log.info("digested %d characters", len(document.text))
    return Digest(summary.text, vector.embedding)


@app.capability("digest.live")
async def digest_live(ctx: Context, document: Document) -> AsyncIterator[dict[str, Any]]:
    """The same, piece by piece."""
    parts: list[str] = []
    async for piece in ctx.stream("summarise", request_for(document), item=Summary):
        parts.append(piece.text)
        yield {"text": piece.text}
    vector = await ctx.call("embedding", "".join(parts) or document.text, result=Vector)
    yield {"embedding": vector.embedding}


def request_for(document: Document) -> dict[str, Any]:
    """What the generating engine is asked."""
    instruction = f"Summarise in one sentence of at most {document.words} words:\n\n{document.text}"
    return {
        "messages": [{"role": "user", "content": instruction}],
        "max_tokens": 2 * document.words,
        "temperature": 0.0,
    }
