"""`GET /v1/models`: the names that `model` may be, and what each stands for here."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from anyserve.runtime.ingress.directory import ModelEntry
from anyserve.runtime.ingress.front import Front
from anyserve.runtime.ingress.http.exchange import Exchange
from anyserve.runtime.ingress.meanings import RefusedError

PATH: Final = re.compile(r"/v1/models/(.+)")


async def serve_list(front: Front, exchange: Exchange) -> None:
    """All names."""
    data = [_object(front, one) for one in front.directory.models]
    await exchange.answer(200, msgspec.json.encode({"object": "list", "data": data}))


async def serve_one(front: Front, exchange: Exchange) -> None:
    """One name."""
    found = PATH.fullmatch(exchange.path)
    name = found[1] if found is not None else ""
    for one in front.directory.models:
        if one.name == name:
            await exchange.answer(200, msgspec.json.encode(_object(front, one)))
            return
    text = f"the model '{name[:200]}' does not exist"
    raise RefusedError(text, code="model_not_found", param="model")


def _object(front: Front, one: ModelEntry) -> dict[str, Any]:
    return {
        "id": one.name,
        "object": "model",
        "created": front.created_s,
        "owned_by": "anyserve",
        "max_model_len": one.max_tokens,
        "capability": one.capability,
        "attributes": dict(one.attributes),
    }
