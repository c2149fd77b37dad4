"""Messages on the wire. One whole example of each stands in `EXAMPLES`, as it is published."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest

from anyserve.core import messages as msg

REQUEST: dict[str, Any] = {
    "id": "player/1/7",
    "asked": "decode",
    "capability": "decode.heavy",
    "prompt_tokens": 12,
    "max_tokens": 32,
    "offered_ns": 1_000,
    "boot": "b1",
    "lifetime_ms": 1_000,
    "attributes": {"model": "smollm2"},
    "priority": 1,
    "deadline": {"boot": "b1", "at_ns": 5_000, "left_ms": 4},
    "first_epoch": 2,
    "affinity": "session-1",
    "resume_ids": [1, 2],
    "body": {"prompt_ids": [5, 6]},
}
CREDIT: dict[str, Any] = {
    "type": "credit",
    "replica": "s1",
    "incarnation": 3,
    "epoch": 2,
    "sequence": 9,
    "granted_total": 8,
    "taken_total": 1,
    "assigned_seen": 3,
    "ordinals_below": 3,
    "load": {
        "running": 4,
        "waiting": 1,
        "kv_usage": 0.5,
        "service_ms": 900.0,
        "tokens_per_s": 80.5,
    },
}
BACK = {
    "id": "player/1/7",
    "attempt": 2001,
    "submission": 2,
    "replica": "s1",
    "incarnation": 3,
    "epoch": 2,
    "request": REQUEST,
}
ATTEMPT = {"id": "player/1/7", "attempt": 2001, "replica": "s1", "incarnation": 3}
TIMES = {
    "received_ns": 1,
    "queue_ns": 2,
    "engine_wait_ns": 3,
    "prefill_ns": 4,
    "decode_ns": 5,
}
EXAMPLES: list[dict[str, Any]] = [
    {
        "type": "submit",
        "request": REQUEST,
        "epoch": 2,
        "submission": 2,
        "last_attempt": 1001,
        "resent": True,
    },
    {"type": "cancel", "id": "player/1/7", "code": "shutdown"},
    {
        "type": "settled",
        "origin": "player",
        "incarnation": 1,
        "ids": ["player/1/7"],
        "settled_below": 6,
        "all_open": True,
    },
    {"type": "operate", "replica": "s1", "action": "slow", "factor": 2.5},
    {
        "type": "delegate",
        **BACK,
        "reason": "too_long",
        "min_rung": "decode.heavy",
        "detail": "44 tokens > 32",
    },
    {"type": "refuse", **BACK, "reason": "stale_credit", "detail": "no free slot"},
    {"type": "return", **BACK},
    CREDIT,
    {
        "type": "holding",
        "replica": "s1",
        "incarnation": 3,
        "epoch": 2,
        "held": [
            {
                "id": "player/1/7",
                "attempt": 1,
                "submission": 1,
                "started": True,
                "entered": True,
            }
        ],
    },
    {"type": "admitted", **ATTEMPT, "submission": 1},
    {"type": "started", **ATTEMPT},
    {
        "type": "ended",
        **ATTEMPT,
        "status": "worker_died",
        "started": False,
        "credit": {"v": 1, **CREDIT},
    },
    {
        "type": "assign",
        "request": REQUEST,
        "attempt": 2001,
        "submission": 2,
        "incarnation": 3,
        "epoch": 2,
        "ordinal": 4,
        "delegations": 1,
    },
    {
        "type": "entry",
        "request": REQUEST,
        "attempt": 2001,
        "submission": 2,
        "epoch": 2,
        "incarnation": 3,
        "delegations": 1,
    },
    {
        "type": "cancel_attempt",
        "id": "player/1/7",
        "attempt": 2001,
        "incarnation": 3,
        "epoch": 2,
        "ordinal": 4,
        "code": "origin_lost",
    },
    {"type": "yield", "epoch": 2},
    {"type": "control", "action": "slow", "factor": 3.0},
    {
        "type": "accepted",
        "id": "player/1/7",
        "capability": "decode.heavy",
        "epoch": 2,
        "submission": 2,
    },
    {
        "type": "rejected",
        "id": "player/1/7",
        "submission": 2,
        "code": "queue_full",
        "detail": "8 wait",
        "retry_after_ms": 1_500,
    },
    {
        "type": "attempt_lost",
        "id": "player/1/7",
        "attempt": 2001,
        "submission": 2,
        "code": "replica_lost",
        "started": True,
        "capability": "decode.heavy",
    },
    {
        "type": "frame",
        **ATTEMPT,
        "submission": 2,
        "sequence": 3,
        "start": 7,
        "tokens": [11, 12],
        "choice": 1,
        "data": {"logprob": -0.5},
        "gaps": {"31622777": 2},
        "end": {
            "status": "failed",
            "n_tokens": [3, 9],
            "finish": ["length", "stop"],
            "times": TIMES,
            "code": "engine_error",
            "message": "boom",
            "cached_tokens": 4,
        },
        "capability": "decode.heavy",
        "delegations": 1,
    },
    {
        "type": "keep_alive",
        "replica": "s1",
        "incarnation": 3,
        "held": [["player/1/7", 2001]],
    },
    {"type": "unknown_attempt", "id": "player/1/7", "attempt": 2001, "replica": "s1"},
    {"type": "stale_epoch", "epoch": 2},
    {"type": "repair", "id": "player/1/7", "attempt": 2001, "sequence": 3},
    {
        "type": "registration",
        "replica": "s1",
        "incarnation": 3,
        "connection": 2,
        "revision": 5,
        "state": "ready",
        "offers": [
            {
                "capability": "decode",
                "attributes": {"model": "smollm2"},
                "limits": {"max_tokens": 2048},
            }
        ],
        "concurrency": 4,
        "prefetch": 1,
        "boot": "b1",
        "engine": "vllm",
        "pid": 77,
        "restarting": True,
    },
    {
        "type": "scheduler_state",
        "epoch": 2,
        "incarnation": 2,
        "ladder": {"decode": "decode.heavy"},
        "capabilities": ["decode", "decode.heavy"],
        "delegation_limit": 1,
        "boot": "b1",
    },
    {"type": "gone", "source": "s1", "incarnation": 3, "connection": 2},
]
KINDS = {kind.__struct_config__.tag: kind for kind in get_args(msg.AnyMessage)}
anything = msgspec.json.Decoder(msg.AnyMessage)


def name(example: dict[str, Any]) -> str:
    return str(example["type"])


def test_there_is_an_example_of_every_message() -> None:
    assert sorted(map(name, EXAMPLES)) == sorted(KINDS)


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_an_example_sets_every_field_so_that_none_is_lost_unseen(example: dict[str, Any]) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(KINDS[example["type"]])}

    assert fields == {*example, "v"} - {"type"}


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_what_is_read_is_written_again_unchanged(example: dict[str, Any]) -> None:
    message = anything.decode(json.dumps(example))

    assert type(message) is KINDS[example["type"]]
    assert json.loads(msgspec.json.encode(message)) == {"v": 1, **example}


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_the_version_is_written_though_nobody_set_it(example: dict[str, Any]) -> None:
    assert "v" not in example
    message = anything.decode(json.dumps(example))

    assert json.loads(msgspec.json.encode(message))["v"] == msg.PROTOCOL_VERSION


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_fields_of_a_later_version_are_ignored(example: dict[str, Any]) -> None:
    later = {**example, "v": 2, "field_of_version_2": [1, {"deep": True}]}

    message = anything.decode(json.dumps(later))

    assert message.v == 2
    assert json.loads(msgspec.json.encode(message)) == {**example, "v": 2}


def test_unknown_fields_of_inner_records_are_ignored_too() -> None:
    example = {"type": "entry", "request": {**REQUEST, "mood": "good"}}

    known = msgspec.json.decode(json.dumps(REQUEST), type=msg.Request)
    assert anything.decode(json.dumps(example)) == msg.Entry(request=known)


def test_an_unknown_tag_costs_only_its_own_element_of_a_list() -> None:
    payload = json.dumps([EXAMPLES[1], {"type": "telepathy", "v": 9}, EXAMPLES[-1]])

    read: list[str] = []
    for element in msgspec.json.decode(payload, type=list[msgspec.Raw]):
        try:
            read.append(type(anything.decode(element)).__name__)
        except msgspec.ValidationError as error:
            read.append(str(error))

    assert read == ["Cancel", "Invalid value 'telepathy' - at `$.type`", "Gone"]


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "cancel"},
        {"type": "cancel", "id": 7},
        {"type": "cancel", "id": "p/1/1", "code": "because"},
        {"id": "p/1/1"},
        [],
    ],
)
def test_a_malformed_message_is_refused(broken: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        anything.decode(json.dumps(broken))


def test_what_is_not_said_is_not_written() -> None:
    short = msg.Entry(
        request=msg.Request(
            id="p/1/1", asked="a", capability="a", prompt_tokens=1, max_tokens=1, offered_ns=0
        )
    )

    assert json.loads(msgspec.json.encode(short)) == {
        "type": "entry",
        "v": 1,
        "request": {
            "id": "p/1/1",
            "asked": "a",
            "capability": "a",
            "prompt_tokens": 1,
            "max_tokens": 1,
            "offered_ns": 0,
        },
    }


def test_a_body_travels_as_it_was_written() -> None:
    raw = b'{"prompt_ids":[1,  2],"unknown":{}}'
    entry = anything.decode(b'{"type":"entry","request":{%s,"body":%s}}' % (_head(), raw))

    assert isinstance(entry, msg.Entry)
    assert raw in msgspec.json.encode(entry)


def _head() -> bytes:
    fields = {key: value for key, value in REQUEST.items() if key != "body"}
    return json.dumps(fields).encode()[1:-1]


def test_a_request_knows_its_origin() -> None:
    assert msgspec.json.decode(json.dumps(REQUEST), type=msg.Request).origin == "player"


def test_an_end_keeps_all_that_it_says_when_it_is_given_a_credit() -> None:
    ended = next(one for one in EXAMPLES if one["type"] == "ended")
    whole = msgspec.convert(ended, msg.Ended)
    assert whole.credit is not None

    assert msg.ended_with(msg.changed(whole, credit=None), whole.credit) == whole
