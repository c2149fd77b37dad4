"""Every code means something to every client."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from anyserve.cli.explaining import all_codes
from anyserve.core.effects import Outcome, OutcomeKind
from anyserve.core.messages import Code
from anyserve.runtime.ingress.http.errors import error_body, retry_headers
from anyserve.runtime.ingress.meanings import MEANINGS, GrpcStatus, RefusedError, refusal_of

PAGE = (Path(__file__).parents[4] / "docs" / "http.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", Code)
def test_every_code_of_the_cluster_has_a_meaning(code: Code) -> None:
    meaning = MEANINGS[code.value]
    assert 400 <= meaning.http < 600
    assert meaning.grpc is not GrpcStatus.OK


@pytest.mark.parametrize("code", MEANINGS)
def test_every_code_is_explained_and_stands_on_the_page(code: str) -> None:
    assert code in all_codes()
    row = re.search(rf"^\|.*`{code}`.*\|$", PAGE, re.MULTILINE)
    assert row is not None
    assert str(MEANINGS[code].http) in row[0]


def test_retry_is_promised_only_where_waiting_helps() -> None:
    for meaning in MEANINGS.values():
        if meaning.retry:
            assert meaning.http in {429, 503}
    assert all(meaning.retry for meaning in MEANINGS.values() if meaning.http in {429, 503})


def refused(code: Code, *, tokens: int = 0, retry_ms: int | None = None) -> RefusedError:
    outcome = Outcome(
        kind=OutcomeKind.REJECTED, code=code, n_tokens=tokens, retry_after_ms=retry_ms
    )
    refusal = refusal_of(outcome, request_id="o/1/1", retry_after_ms=700)
    assert refusal is not None
    return refusal


def test_completed_request_is_not_refused() -> None:
    done = Outcome(kind=OutcomeKind.COMPLETED)
    assert refusal_of(done, request_id="o/1/1", retry_after_ms=1) is None


def test_deadline_is_contention_before_the_first_token_and_a_timeout_after_it() -> None:
    waiting = refused(Code.DEADLINE_EXCEEDED)
    running = refused(Code.DEADLINE_EXCEEDED, tokens=3)
    assert (waiting.http_status, running.http_status) == (429, 504)
    assert waiting.grpc_status is running.grpc_status is GrpcStatus.DEADLINE_EXCEEDED
    assert (waiting.retry_after_ms, running.retry_after_ms) == (700, None)


@pytest.mark.parametrize(("wait_ms", "seconds"), [(1, b"1"), (1000, b"1"), (1001, b"2")])
def test_time_to_come_back_is_said_in_seconds_and_milliseconds(
    wait_ms: int, seconds: bytes
) -> None:
    headers = dict(retry_headers(refused(Code.QUEUE_FULL, retry_ms=wait_ms)))
    assert headers == {b"retry-after": seconds, b"retry-after-ms": b"%d" % wait_ms}


def test_front_estimates_where_the_cluster_did_not() -> None:
    assert dict(retry_headers(refused(Code.NO_REPLICA)))[b"retry-after-ms"] == b"700"
    assert retry_headers(refused(Code.UNKNOWN_CAPABILITY)) == []


def test_error_has_the_form_that_clients_read() -> None:
    refusal = RefusedError('no "quotes"', code="model_not_found", param="model")
    assert error_body(refusal) == (
        b'{"error":{"message":"no \\"quotes\\"","type":"not_found_error","param":"model",'
        b'"code":"model_not_found"}}'
    )
