"""What requests say: names to routes, parameters to the engine's, mistakes to their place."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from live import echo, replica

from anyserve.core.spec import (
    AppSpec,
    CapabilitySpec,
    ClusterSpec,
    EngineSpec,
    IngressSpec,
    LadderSpec,
    ModelRoute,
)
from anyserve.runtime.engines.base import Guide, Task
from anyserve.runtime.ingress.codecs import ByteCodec, tool_format
from anyserve.runtime.ingress.directory import DEFAULT_MAX_TOKENS, Directory
from anyserve.runtime.ingress.doors import door_name, replica_ports
from anyserve.runtime.ingress.http.keys import ApiKeys
from anyserve.runtime.ingress.meanings import RefusedError
from anyserve.runtime.ingress.openai.asking import guide_of, make_sampling
from anyserve.runtime.ingress.openai.inputs import encode_inputs
from anyserve.runtime.ingress.openai.wire import (
    ChatRequest,
    CompletionRequest,
    ResponseFormat,
    StructuredOutputs,
    decode,
)

VLLM = EngineSpec(kind="vllm", model="smollm2-135m", max_model_len=2048)


def cluster(**changes: Any) -> ClusterSpec:
    spec = ClusterSpec(
        name="c",
        capabilities=tuple(
            CapabilitySpec(name=name) for name in ("decode", "decode.heavy", "embedding", "ghost")
        ),
        ladder=LadderSpec(upgrades={"decode": "decode.heavy"}),
        replicas=(
            replica("s1", "decode", max_tokens=256, engine=echo(256)),
            replica("h1", "decode.heavy", max_tokens=2048, engine=VLLM),
            replica("e1", "embedding", engine=echo(512, task="embed")),
        ),
        ingress=IngressSpec(models={"small": ModelRoute(capability="decode")}),
    )
    return msgspec.structs.replace(spec, **changes)


@pytest.mark.parametrize(
    ("asked", "capability"),
    [
        ({"capability": "decode.heavy", "model": "small"}, "decode.heavy"),
        ({"capability": "ghost"}, "ghost"),
        ({"model": "small"}, "decode"),
        ({"model": "smollm2-135m"}, "decode.heavy"),
        ({"model": "embedding"}, "embedding"),
        ({"model": ""}, "decode"),
        ({}, "decode"),
        ({"task": Task.EMBED}, "embedding"),
    ],
)
def test_header_goes_before_model_before_default(asked: dict[str, Any], capability: str) -> None:
    route = Directory(cluster()).route(**{"task": Task.GENERATE, **asked})
    assert (route.capability, route.entry) == (capability, "scheduler")


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"capability": "nobody"}, "unknown_capability"),
        ({"model": "gpt"}, "model_not_found"),
        ({"entry": "s9"}, "unknown_entry"),
    ],
)
def test_names_that_nobody_knows_are_refused(asked: dict[str, Any], code: str) -> None:
    with pytest.raises(RefusedError) as refused:
        Directory(cluster()).route(**asked)
    assert refused.value.code == code


def test_ingress_of_a_replica_offers_to_it_unless_told_otherwise() -> None:
    directory = Directory(cluster(), entry="s1")
    assert directory.route().entry == "s1"
    assert directory.route(entry="scheduler").entry == "scheduler"
    assert directory.route(entry="h1").entry == "h1"


def test_defaults_of_the_scenario_count() -> None:
    ingress = IngressSpec(generate="decode.heavy", embed="embedding")
    directory = Directory(cluster(ingress=ingress))
    assert directory.route(task=Task.GENERATE).capability == "decode.heavy"
    nothing = cluster(replicas=(replica("s1", "decode", engine=echo()),))
    with pytest.raises(RefusedError, match="embeds"):
        Directory(nothing).route(task=Task.EMBED)


def test_answer_without_a_bound_may_fill_the_lowest_context_that_holds_its_prompt() -> None:
    directory = Directory(cluster())
    route = directory.route(capability="decode")
    assert directory.default_max_tokens(route, 56) == 200
    assert directory.default_max_tokens(route, 256) == 2048 - 256
    assert directory.default_max_tokens(route, 5000) == 1
    embed = directory.route(capability="embedding")
    assert directory.default_max_tokens(embed, 10) == DEFAULT_MAX_TOKENS


def test_capability_of_a_handler_is_no_models() -> None:
    handler = msgspec.structs.replace(
        replica("a1", "ghost", engine=EngineSpec(kind="none")),
        app=AppSpec(name="my:app", serves=("ghost",)),
    )
    directory = Directory(cluster(replicas=(*cluster().replicas, handler)))
    assert directory.route(capability="ghost").engine is None
    assert directory.is_handled("ghost")
    assert not directory.is_handled("decode")


def sampling_of(body: bytes, capability: str = "decode.heavy", **more: Any) -> Any:
    asked = decode(msgspec.json.Decoder(ChatRequest), body)
    route = Directory(cluster()).route(capability=capability)
    guide = guide_of(asked.response_format, asked.structured_outputs)
    options = {"max_tokens": 9, "logprobs": None, "guide": guide, **more}
    return make_sampling(asked, route, **options)


def test_parameters_reach_the_engine() -> None:
    body = (
        b'{"messages":[{"role":"user"}],"temperature":0,"top_p":0.5,"top_k":-1,"min_p":0.1,'
        b'"n":2,"seed":-3,"stop":["a","b"],"stop_token_ids":[5],"presence_penalty":1,'
        b'"frequency_penalty":-1,"repetition_penalty":1.1,"logit_bias":{"7":-100},"min_tokens":3,'
        b'"ignore_eos":true,"response_format":{"type":"json_object"}}'
    )
    made = sampling_of(body, logprobs=2)
    assert msgspec.to_builtins(made) == {
        "max_tokens": 9, "min_tokens": 3, "temperature": 0.0, "top_p": 0.5, "min_p": 0.1,
        "n": 2, "seed": -3, "stop": ["a", "b"], "stop_token_ids": [5], "ignore_eos": True,
        "logprobs": 2, "presence_penalty": 1.0, "frequency_penalty": -1.0,
        "repetition_penalty": 1.1, "logit_bias": {7: -100.0}, "guide": {"json_object": True},
    }  # fmt: skip


def test_engine_that_computes_nothing_finds_no_stops_and_knows_no_guides() -> None:
    made = sampling_of(b'{"messages":[{"role":"user"}],"stop":"x"}', "decode")
    assert made.stop == []  # the door finds it
    with pytest.raises(RefusedError) as refused:
        sampling_of(b'{"messages":[{"role":"user"}]}', "decode", guide=Guide(json_object=True))
    assert refused.value.param == "response_format"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b'{"prompt":"x","n":"two"}', "n", "invalid_request"),
        (b'{"prompt":"x","n":129}', "n", "invalid_request"),
        (b'{"prompt":"x","stop":[""]}', "stop[0]", "invalid_request"),
        (b'{"prompt":"x","stream_options":{"more":1}}', "stream_options.more",
         "unsupported_parameter"),
        (b'{"prompt":"x","functions":[]}', "functions", "unsupported_parameter"),
        (b'{"model":"m"}', "prompt", "invalid_request"),
        (b"[]", None, "invalid_request"),
        (b'{"prompt":"\\ud800"}', None, "invalid_request"),
        (b"\xff", None, "invalid_request"),
    ],
)  # fmt: skip
def test_mistake_is_found_where_it_is(body: bytes, param: str | None, code: str) -> None:
    with pytest.raises(RefusedError) as refused:
        decode(msgspec.json.Decoder(CompletionRequest), body)
    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.parametrize(
    ("format_", "structured", "guide"),
    [
        (None, None, None),
        (ResponseFormat(type="text"), None, None),
        (None, StructuredOutputs(regex="a+"), Guide(regex="a+")),
        (None, StructuredOutputs(choice=["a"]), Guide(choice=["a"])),
    ],
)
def test_constraints_on_the_output(
    format_: ResponseFormat | None, structured: StructuredOutputs | None, guide: Guide | None
) -> None:
    assert guide_of(format_, structured) == guide


@pytest.mark.parametrize(
    ("format_", "structured"),
    [
        (ResponseFormat(type="json_schema"), None),
        (ResponseFormat(type="json_object"), StructuredOutputs(regex="a")),
        (None, StructuredOutputs()),
        (None, StructuredOutputs(regex="a", grammar="b")),
    ],
)
def test_constraints_that_are_none_or_too_many(
    format_: ResponseFormat | None, structured: StructuredOutputs | None
) -> None:
    with pytest.raises(RefusedError):
        guide_of(format_, structured)


async def test_inputs_of_every_kind() -> None:
    async def ids(given: Any) -> list[list[int]]:
        return await encode_inputs(given, ByteCodec(), name="input", most=3)

    assert await ids("ab") == [[97, 98]]
    assert await ids([1, 2]) == [[1, 2]]
    assert await ids(["a", "b"]) == [[97], [98]]
    assert await ids([[1], [2, 3]]) == [[1], [2, 3]]
    assert await ids("x" * 20_000) == [[120] * 20_000]
    for bad in ([], [True], ["a", 1], [[1], "a"], ["a"] * 4, [""], [-1], [2**31], [1.5]):
        with pytest.raises(RefusedError):
            await ids(bad)


def test_keys_are_compared_whole() -> None:
    keys = ApiKeys(["secret", "grün"])
    keys.check("Bearer secret")
    keys.check("bearer  secret")
    keys.check(None, "grün")
    for wrong in (None, "", "secret", "Basic secret", "Bearer", "Bearer secre", "Bearer secretx"):
        with pytest.raises(RefusedError):
            keys.check(wrong)
    ApiKeys([]).check(None)


def test_doors_of_replicas_have_names_and_ports_of_their_own() -> None:
    long = "a" * 31
    names = {door_name(f"{long}{digit}") for digit in "1234"} | {door_name("s1")}
    assert len(names) == 5
    assert all(len(name) <= 32 for name in names)
    assert door_name("s1") == "in-s1"
    settings = IngressSpec(replica_http_port=8100, replica_grpc_port=0)
    assert replica_ports(settings, 3) == (8103, 0)
    assert replica_ports(IngressSpec(), 3) == (None, None)


@pytest.mark.parametrize(
    ("template", "format_"),
    [
        ("{{ tools }} in <tool_call> tags", "hermes"),
        ("{{ tools }} in another form", None),
        ("<tool_call> of a model that is told of none", None),
    ],
)
def test_tools_are_known_by_the_models_template(template: str, format_: str | None) -> None:
    assert tool_format(template) == format_
