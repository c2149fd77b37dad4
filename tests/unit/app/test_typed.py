"""JSON as handlers want it, and their results as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from anyserve import InvalidRequestError, ObjRef
from anyserve.app.typed import check_result, decode, encode

REF = ObjRef(
    id="0" * 32, size=3, digest="d", content_type="x", created_ms=1, expires_ms=2, shape=(3,)
)


class Struct(msgspec.Struct):
    texts: list[str]
    kind: Literal["a", "b"] = "a"


@dataclass
class Data:
    inner: Struct


class Model(BaseModel):
    items: list[int]
    ref: ObjRef | None = None


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        (Struct, Struct(["x"], "b")),
        (Data, Data(Struct([]))),
        (Model, Model(items=[1], ref=REF)),
        (ObjRef, REF),
        (list[int], [1, 2]),
        (dict[str, float], {"a": 0.5}),
        (str | None, None),
        (bytes, b"raw"),
    ],
    ids=repr,
)
def test_values_survive_the_way_there_and_back(wanted: Any, value: Any) -> None:
    assert decode(encode(value), wanted) == value
    check_result(value, wanted)


numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(json_values)
def test_any_json_is_any(value: Any) -> None:
    assert decode(encode(value), Any) == value


@pytest.mark.parametrize(
    ("data", "wanted", "pointer"),
    [
        (b'{"texts": ["a", 1]}', Struct, "$.texts[1]"),
        (b'{"texts": [], "kind": "c"}', Struct, "$.kind"),
        (b'{"inner": {}}', Data, "$.inner"),
        (b'{"items": [1, "x"]}', Model, "$.items[1]"),
        (b'{"items": [], "ref": {"id": 3}}', Model, "$.ref"),
        (b"3", Model, "$"),
        (b"[1, 2.5]", list[int], "$[1]"),
        (b"{", Any, ""),
    ],
)
def test_what_does_not_fit_is_pointed_at(data: bytes, wanted: Any, pointer: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode(data, wanted)

    assert (caught.value.code, caught.value.pointer) == ("invalid_request", pointer)


@pytest.mark.parametrize("value", [object(), np.zeros(3), {1, object()}, lambda: 0], ids=repr)
def test_what_json_cannot_say_is_refused_with_a_way_out(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be said in JSON") as caught:
        encode(value)
    assert "ctx.objects.put" in caught.value.hint


def test_numbers_of_numpy_are_numbers() -> None:
    assert encode({"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True)}) == (
        b'{"a":0.5,"b":3,"c":true}'
    )
    assert encode(math.nan) == b"null"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(3, str), ([1, "x"], list[int]), (None, int), (1, None), (Struct([]), Model), ({}, Struct)],
)
def test_a_result_that_breaks_its_own_promise_is_the_handler_s_fault(
    value: Any, wanted: Any
) -> None:
    with pytest.raises(TypeError, match="its annotation says"):
        check_result(value, wanted)


@pytest.mark.parametrize(("value", "wanted"), [(3, float), (object(), Any), (1, "unknown")])
def test_what_an_annotation_cannot_tell_passes(value: Any, wanted: Any) -> None:
    check_result(value, wanted)
