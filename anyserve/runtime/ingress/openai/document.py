"""`GET /openapi.json`: what this door takes, made from the very types that read it."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec

from anyserve.runtime.ingress.front import Front
from anyserve.runtime.ingress.http.errors import ErrorBody
from anyserve.runtime.ingress.http.exchange import Exchange
from anyserve.runtime.ingress.http.probes import Health
from anyserve.runtime.ingress.openai.wire import ChatRequest, CompletionRequest, EmbeddingRequest
from anyserve.version import __version__

_JSON: Final = "application/json"
_REF: Final = "#/components/schemas/{name}"
_HEADERS: Final = (
    ("x-anyserve-capability", "The capability, instead of what `model` stands for.", "string"),
    ("x-anyserve-entry", "`scheduler`, or the replica where the request enters.", "string"),
    ("x-anyserve-priority", "Lower goes first; the body's `priority` otherwise.", "integer"),
    ("x-anyserve-timeout-ms", "The answer is worthless after this long.", "integer"),
    ("x-slo-ttft-ms", "The answer is worthless if it does not begin within this.", "integer"),
    ("x-anyserve-affinity", "Requests with the same value like the same replica.", "string"),
)
_RANGES: Final = {
    "x-anyserve-priority": {"minimum": -1000, "maximum": 1000},
    "x-anyserve-timeout-ms": {"minimum": 1, "maximum": 86_400_000},
    "x-slo-ttft-ms": {"minimum": 1, "maximum": 86_400_000},
}


async def serve(front: Front, exchange: Exchange) -> None:
    """The OpenAPI document, version 3.1."""
    del front
    await exchange.answer(200, document_bytes())


@cache
def document_bytes() -> bytes:
    """The document as it is sent."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=1)


def document() -> dict[str, Any]:
    """The document as data."""
    types = (ChatRequest, CompletionRequest, EmbeddingRequest, ErrorBody, Health)
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AnyServe",
            "version": __version__,
            "description": "OpenAI's API in front of an AnyServe cluster.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/chat/completions": {"post": _asking("ChatRequest", "Answer a conversation.")},
            "/v1/completions": {"post": _asking("CompletionRequest", "Go on with a text.")},
            "/v1/embeddings": {"post": _asking("EmbeddingRequest", "Vectors of texts.")},
            "/v1/capabilities/{name}": {"post": _calling()},
            "/v1/models": {"get": _reading("The names that `model` may be.")},
            "/v1/models/{model}": {
                "get": {
                    **_reading("One of them."),
                    "parameters": [_parameter("model", "path", "Its name.", "string")],
                }
            },
            "/live": {"get": _probe("Whether the process answers at all.")},
            "/ready": {"get": _probe("Whether new requests are taken.")},
            "/health": {"get": _probe("The same as /ready.")},
            "/metrics": {"get": _text("Metrics in the text format of Prometheus.")},
            "/openapi.json": {"get": _open("This document.")},
        },
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _asking(request: str, summary: str) -> dict[str, Any]:
    body = {"required": True, "content": {_JSON: {"schema": _ref(request)}}}
    headers = [_parameter(name, "header", text, kind) for name, text, kind in _HEADERS]
    text = "The answer, whole or as a stream of events whose data is JSON, then `[DONE]`."
    answer: dict[str, Any] = {"description": text}
    # OpenAPI 3.1 has no words for one event of a stream.
    answer["content"] = {_JSON: {"schema": {"type": "object"}}, "text/event-stream": {}}
    return {
        "summary": summary,
        "parameters": headers,
        "requestBody": body,
        "responses": {"200": answer, **_errors()},
    }


def _calling() -> dict[str, Any]:
    """Any JSON to any capability."""
    asking = _asking("ChatRequest", "Call a capability, a handler's or an engine's.")
    asking["requestBody"]["content"][_JSON]["schema"] = {}
    asking["responses"]["200"]["content"][_JSON]["schema"] = {}
    name = _parameter("name", "path", "Of the capability.", "string")
    return {**asking, "parameters": [name, *asking["parameters"]]}


def _reading(summary: str) -> dict[str, Any]:
    answer = {
        "description": "The answer.",
        "content": {_JSON: {"schema": {"type": "object"}}},
    }
    return {"summary": summary, "responses": {"200": answer, **_errors()}}


def _open(summary: str) -> dict[str, Any]:
    return {**_reading(summary), "security": []}


def _text(summary: str) -> dict[str, Any]:
    answer = {"description": "Text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"summary": summary, "responses": {"200": answer, **_errors()}}


def _probe(summary: str) -> dict[str, Any]:
    health = {"content": {_JSON: {"schema": _ref("Health")}}}
    responses = {
        "200": {"description": "Yes.", **health},
        "503": {"description": "No.", **health},
    }
    return {"summary": summary, "responses": responses, "security": []}


def _errors() -> dict[str, Any]:
    """Every error has one form; `code` is stable."""
    content = {_JSON: {"schema": _ref("ErrorBody")}}
    return {"default": {"description": "An error, with its stable code.", "content": content}}


def _parameter(name: str, place: str, text: str, kind: str) -> dict[str, Any]:
    schema = {"type": kind, **_RANGES.get(name, {})}
    shown = {"name": name, "in": place, "description": text, "schema": schema}
    return {**shown, "required": True} if place == "path" else shown


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(name=name)}
