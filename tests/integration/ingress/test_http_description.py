"""What the OpenAPI document allows, and what it forbids, never brings the server down."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import schemathesis
from doors import another_ingress, ask
from hypothesis import HealthCheck, given, settings
from live import LiveCluster
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from anyserve.core.spec import IngressLimits
from anyserve.runtime.ingress.openai.document import document

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(180)]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
OPERATIONS = {
    "/v1/chat/completions": ("POST", 25),
    "/v1/completions": ("POST", 25),
    "/v1/embeddings": ("POST", 15),
    "/v1/capabilities/{name}": ("POST", 15),
    "/v1/models": ("GET", 3),
    "/v1/models/{model}": ("GET", 10),
    "/openapi.json": ("GET", 1),
    "/metrics": ("GET", 1),
}
BUDGETS = {"x-anyserve-timeout-ms", "x-slo-ttft-ms"}


def try_all(url: str, path: str, mode: GenerationMode) -> int:
    """Ask for everything that can be generated for one path; returns how much that was."""
    method, examples = OPERATIONS[path]
    schema = schemathesis.openapi.from_dict(document())
    cases = schema[path][method].as_strategy(generation_mode=mode)
    tried = 0

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def one(case: Case[Any]) -> None:
        nonlocal tried
        tried += 1
        response = case.call(base_url=url, timeout=30)
        late = response.status_code == 504 and BUDGETS.intersection(map(str.lower, case.headers))
        if not late:  # the client's own budget was over while the answer was made
            case.validate_response(response, checks=CHECKS)

    one()
    return tried


@pytest.mark.parametrize("path", OPERATIONS)
async def test_no_generated_request_is_answered_by_a_server_error(
    served: LiveCluster, path: str
) -> None:
    limits = IngressLimits(body_bytes=64 * 1024)
    async with another_ingress(served, generate="quick", limits=limits) as (ingress, url):
        tried = await asyncio.to_thread(try_all, url, path, GenerationMode.POSITIVE)
        if OPERATIONS[path][0] == "POST":
            tried += await asyncio.to_thread(try_all, url, path, GenerationMode.NEGATIVE)
        assert tried
        assert ingress.front.open_requests == 0


async def test_document_is_served_as_it_is(urls: dict[str, str]) -> None:
    reply = await ask(urls[""], "/openapi.json")
    assert reply.json() == document()
    schemathesis.openapi.from_dict(reply.json()).validate()
