from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given
from hypothesis import strategies as st

from anyserve.runtime.ingress.meanings import RefusedError
from anyserve.runtime.ingress.oip import inference_pb2 as pb
from anyserve.runtime.ingress.oip.tensors import MAX_ELEMENTS, Outputs, read_tensors

HERE = Path(pb.__file__).parent


def request(
    datatype: str, shape: list[int], raw: bytes | None = None, name: str = "x"
) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest()
    made.inputs.add(name=name, datatype=datatype, shape=shape)
    if raw is not None:
        made.raw_input_contents.append(raw)
    return made


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_whole_numbers_come_back_from_either_form(values: list[int]) -> None:
    raw = request("INT64", [len(values)], np.array(values, dtype="<i8").tobytes())
    typed = request("INT64", [len(values)])
    typed.inputs[0].contents.int64_contents.extend(values)

    assert read_tensors(raw)["x"].integers() == values
    assert read_tensors(typed)["x"].integers() == values


@pytest.mark.parametrize("datatype", ["INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32"])
def test_all_widths_are_read(datatype: str) -> None:
    code = datatype.lower().replace("uint", "<u").replace("int", "<i")
    code = code[:2] + str(int(code[2:]) // 8)
    values = [0, 1, 100]

    tensor = read_tensors(request(datatype, [3], np.array(values, dtype=code).tobytes()))["x"]

    assert tensor.integers() == values


@given(st.text(max_size=50))
def test_a_text_comes_back_from_either_form(text: str) -> None:
    encoded = text.encode("utf-8", "replace")
    raw = request("BYTES", [1], struct.pack("<I", len(encoded)) + encoded)
    typed = request("BYTES", [1])
    typed.inputs[0].contents.bytes_contents.append(encoded)

    assert read_tensors(raw)["x"].text() == encoded.decode()
    assert read_tensors(typed)["x"].text() == encoded.decode()


@given(st.binary(max_size=64), st.sampled_from(["BYTES", "INT64", "BOOL", "FP32", "INT8", ""]))
def test_any_bytes_are_read_or_refused(raw: bytes, datatype: str) -> None:
    try:
        read_tensors(request(datatype, [len(raw)], raw))
    except RefusedError as refusal:
        assert refusal.http_status == 400  # noqa: PT017 - most are not refused


def _two_raw() -> pb.ModelInferRequest:
    made = request("INT64", [1], bytes(8))
    made.raw_input_contents.append(b"")
    return made


def _both_forms() -> pb.ModelInferRequest:
    made = request("INT64", [1], bytes(8))
    made.inputs[0].contents.int64_contents.append(1)
    return made


def _twice() -> pb.ModelInferRequest:
    made = request("INT64", [0])
    made.inputs.add(name="x", datatype="INT64", shape=[0])
    return made


def _shared() -> pb.ModelInferRequest:
    made = request("INT64", [1])
    made.inputs[0].parameters["shared_memory_region"].string_param = "r"
    return made


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (_two_raw(), "2 raw_input_contents for 1 inputs"),
        (_both_forms(), "typed and raw"),
        (_twice(), "stands twice"),
        (_shared(), "shared memory"),
        (request("FP16", [1], bytes(2)), "no model here takes it"),
        (request("INT64", [2], bytes(8)), "its shape says 16"),
        (request("INT64", [2]), "0 elements, its shape says 2"),
        (request("INT64", [-1]), "no whole shape"),
        (request("INT64", []), "no whole shape"),
        (request("BOOL", [2**40]), "too many"),
        (request("BYTES", [1], b"\x05\x00\x00"), "within a length"),
        (request("BYTES", [1], b"\x05\x00\x00\x00ab"), "within an element"),
    ],
)
def test_what_does_not_fit_is_named(made: pb.ModelInferRequest, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        read_tensors(made)


def test_the_wrong_kind_of_values_is_named() -> None:
    number = read_tensors(request("INT64", [1], bytes(8)))["x"]
    letters = read_tensors(request("BYTES", [1], b"\x01\x00\x00\x00\xff"))["x"]

    for read in (number.text, number.flag, letters.text, letters.integers):
        with pytest.raises(RefusedError, match="'x'"):
            read()


def test_no_more_is_read_than_a_bound() -> None:
    assert MAX_ELEMENTS * 8 > 4 * 2**20  # the bound on a message comes first


@pytest.mark.parametrize("raw", [True, False])
def test_outputs_are_written_in_the_form_that_was_asked_in(raw: bool) -> None:
    response = pb.ModelInferResponse()
    outputs = Outputs(response, raw=raw)
    outputs.texts("text", ["a", "bc"])
    outputs.integers("ids", [3, -4])
    outputs.floats("vector", [0.5])

    assert [list(one.shape) for one in response.outputs] == [[2], [2], [1]]
    if raw:
        assert response.raw_output_contents[0] == b"\x01\0\0\0a\x02\0\0\0bc"
        assert np.frombuffer(response.raw_output_contents[1], "<i8").tolist() == [3, -4]
        assert np.frombuffer(response.raw_output_contents[2], "<f4").tolist() == [0.5]
        assert not any(one.HasField("contents") for one in response.outputs)
    else:
        assert list(response.outputs[0].contents.bytes_contents) == [b"a", b"bc"]
        assert list(response.outputs[1].contents.int64_contents) == [3, -4]
        assert list(response.outputs[2].contents.fp32_contents) == [0.5]


def test_what_is_committed_is_what_the_proto_says(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=.",
         f"--descriptor_set_out={tmp_path / 'fresh'}", "inference.proto"],
        cwd=HERE, check=True,
    )  # fmt: skip

    fresh = FileDescriptorSet.FromString((tmp_path / "fresh").read_bytes())
    assert FileDescriptorSet.FromString((HERE / "inference.binpb").read_bytes()) == fresh


def test_every_message_has_a_type_for_mypy() -> None:
    stub = (HERE / "inference_pb2.pyi").read_text()

    for name in pb.DESCRIPTOR.message_types_by_name:
        assert f"class {name}(_message.Message):" in stub


def test_a_client_library_of_the_same_protocol_may_live_in_our_process() -> None:
    from tritonclient.grpc import service_pb2  # noqa: PLC0415 - it must not come before ours

    theirs = service_pb2.ModelInferRequest(model_name="m", id="1")
    theirs.parameters["priority"].uint64_param = 3
    theirs.inputs.add(name="x", datatype="BYTES", shape=[1])

    ours = pb.ModelInferRequest.FromString(theirs.SerializeToString())

    assert (ours.model_name, ours.parameters["priority"].uint64_param) == ("m", 3)
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(
        deterministic=True
    )


def test_our_messages_are_theirs() -> None:
    """Names, numbers and types of every field, as Triton's client has them."""
    from tritonclient.grpc import service_pb2  # noqa: PLC0415

    theirs = service_pb2.DESCRIPTOR
    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        known = {
            (field.name, field.number, field.type)
            for field in theirs.message_types_by_name[name].fields
        }
        assert {(field.name, field.number, field.type) for field in message.fields} <= known
    calls = theirs.services_by_name["GRPCInferenceService"].methods_by_name
    for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        assert calls[method.name].input_type.name == method.input_type.name
        assert calls[method.name].output_type.name == method.output_type.name
