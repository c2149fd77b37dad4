from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyserve.runtime.ingress.meanings import RefusedError
from anyserve.runtime.ingress.oip import inference_pb2 as pb
from anyserve.runtime.ingress.oip.parameters import Routing, read_parameters, read_sampling
from anyserve.runtime.ingress.oip.responses import set_parameter


def given_as(**values: Any) -> Any:
    request = pb.ModelInferRequest()
    for name, value in values.items():
        if isinstance(value, float):
            request.parameters[name].double_param = value
        else:
            set_parameter(request.parameters[name], value)
    return request.parameters


def test_nothing_said_is_the_default() -> None:
    assert read_parameters(given_as()) == (Routing(), {})


def test_routing_is_told_apart_from_sampling() -> None:
    routing, rest = read_parameters(
        given_as(capability="decode", entry="s1", affinity="u1", priority=1, timeout=1500, seed=7)
    )

    assert routing == Routing("decode", "s1", "u1", 0, 2)
    assert rest == {"seed": 7}


@pytest.mark.parametrize(("said", "meant"), [(0, 0), (1, 0), (2, 1), (1001, 1000)])
def test_one_is_the_highest_priority(said: int, meant: int) -> None:
    assert read_parameters(given_as(priority=said))[0].priority == meant


@pytest.mark.parametrize(("us", "ms"), [(0, None), (1, 1), (1000, 1), (1001, 2), (5_000_000, 5000)])
def test_a_timeout_is_in_microseconds(us: int, ms: int | None) -> None:
    assert read_parameters(given_as(timeout=us))[0].timeout_ms == ms


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"priority": -1}, "priority is not within"),
        ({"priority": 2000}, "priority is not within"),
        ({"priority": True}, "'priority' must be a whole number"),
        ({"timeout": -5}, "timeout is not within"),
        ({"timeout": "1"}, "'timeout' must be a whole number"),
        ({"capability": 1}, "'capability' must be a text"),
        ({"sequence_id": 4}, "no sequences"),
        ({"model": "x"}, "'model' is not a parameter here"),
        ({"temperature": math.inf}, "not a finite number"),
        ({"top_p": "{"}, "is not JSON"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        read_parameters(given_as(**values))


def test_a_parameter_without_a_value_is_named() -> None:
    request = pb.ModelInferRequest()
    request.parameters["seed"].SetInParent()

    with pytest.raises(RefusedError, match="'seed' has no value"):
        read_parameters(request.parameters)


def test_numbers_and_lists_may_be_written_as_text() -> None:
    _, rest = read_parameters(
        given_as(temperature="0.2", stop='["a", "b"]', user="[me", ignore_eos="true", top_k=5)
    )

    assert rest == {
        "temperature": 0.2, "stop": ["a", "b"], "user": "[me", "ignore_eos": True, "top_k": 5,
    }  # fmt: skip
    assert read_parameters(given_as(stop="\n"))[1] == {"stop": "\n"}


def test_the_tensor_of_parameters_wins() -> None:
    asked = read_sampling({"seed": 1, "max_tokens": 5}, '{"seed": 2, "stop": ["x"]}')

    assert (asked.seed, asked.max_tokens, asked.stop) == (2, 5, ["x"])


@pytest.mark.parametrize("tensor", ["[]", "nonsense", "{" * 3000, '{"stream": true}'])
def test_a_tensor_that_holds_no_parameters_is_named(tensor: str) -> None:
    with pytest.raises(RefusedError):
        read_sampling({}, tensor)


VALUES = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=30), st.floats()
)


@given(st.dictionaries(st.text(min_size=1, max_size=20), VALUES, max_size=5))
def test_any_parameters_are_read_or_refused(values: dict[str, Any]) -> None:
    try:
        _, rest = read_parameters(given_as(**values))
        read_sampling(rest, None)
    except RefusedError as refusal:
        assert refusal.http_status == 400  # noqa: PT017 - most are not refused
