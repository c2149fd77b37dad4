from __future__ import annotations

import json
import types
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyserve.core import events as ev
from anyserve.core import messages as msg

KINDS = get_args(ev.AnyEvent)
envelopes = msgspec.json.Decoder(ev.Envelope)


def tag(kind: type[ev.Event]) -> str:
    return str(kind.__struct_config__.tag)


def test_every_event_is_in_the_union_under_a_tag_of_its_own() -> None:
    tags = [tag(kind) for kind in KINDS]

    assert set(KINDS) == set(ev.Event.__subclasses__())
    assert len(set(tags)) == len(tags)
    assert all(text.count(".") == 1 for text in tags)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Everything of a type that JSON can carry: no infinities, 64-bit integers."""
    parts = get_args(hint)
    if get_origin(hint) is Mapping:
        return st.dictionaries(values(parts[0]), values(parts[1]), max_size=3)
    if get_origin(hint) is list:
        return st.lists(values(parts[0]), max_size=3)
    if isinstance(hint, types.UnionType):
        return st.one_of(*map(values, parts))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        fields = get_type_hints(hint)
        return st.builds(hint, **{name: values(fields[name]) for name in hint.__struct_fields__})
    simple: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.floats(allow_nan=False, allow_infinity=False),
    }
    return simple[hint] if hint in simple else st.from_type(hint)


@pytest.mark.parametrize("kind", KINDS, ids=tag)
@given(data=st.data())
@settings(max_examples=25)
def test_an_event_survives_the_log(kind: type[ev.Event], data: st.DataObject) -> None:
    event = data.draw(values(kind))
    line = ev.Envelope(t=5, source="s1", incarnation=2, seq=0, event=event, boot="b")

    again = envelopes.decode(msgspec.json.encode(line))

    assert again == line
    assert type(again.event) is kind


def test_a_line_of_the_log_reads_like_this() -> None:
    event = ev.AttemptEnded(
        id="p/1/1",
        attempt=1001,
        status="completed",
        n_tokens=3,
        times=msg.Times(received_ns=1, decode_ns=2),
    )

    line = msgspec.json.encode(ev.Envelope(t=9, source="s1", incarnation=1, seq=4, event=event))

    assert json.loads(line) == {
        "t": 9,
        "source": "s1",
        "incarnation": 1,
        "seq": 4,
        "event": {
            "type": "attempt.ended",
            "id": "p/1/1",
            "attempt": 1001,
            "status": "completed",
            "n_tokens": 3,
            "times": {"received_ns": 1, "decode_ns": 2},
        },
    }


def test_an_event_of_a_later_version_is_refused_by_its_tag() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"request\.sung"):
        envelopes.decode(
            b'{"t":1,"source":"s","incarnation":1,"seq":0,"event":{"type":"request.sung"}}'
        )
