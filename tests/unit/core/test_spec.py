from __future__ import annotations

import msgspec
import pytest
from builders import cluster, offer, replica_spec

from anyserve.core.spec import (
    BrokerSpec,
    CapabilitySpec,
    ClusterSpec,
    EngineSpec,
    Expectation,
    FaultSpec,
    SchedulerSpec,
    Spec,
)

WHOLE = ClusterSpec(
    name="mixed",
    capabilities=(
        CapabilitySpec(
            name="decode",
            queue_limit=8,
            target_wait_ms=50.0,
            reserve=0.25,
            mid_stream="resume",
        ),
        CapabilitySpec(name="decode.heavy"),
    ),
    replicas=(
        replica_spec("s1", offer("decode", 512, model="smollm2"), prefetch=1),
        replica_spec("h1", offer("decode.heavy"), concurrency=8),
    ),
    ladder=cluster().ladder,
    delegation=cluster(limit=2, overload=True).delegation,
    scheduler=SchedulerSpec(
        policy="power-of-two", policy_options={"choices": 3}, order="deadline", seed=7
    ),
    broker=BrokerSpec(url="mqtt://127.0.0.1:1883"),
    request_lifetime_ms=9_000,
)
SPECS: list[Spec] = [
    WHOLE,
    cluster(),
    EngineSpec(kind="vllm", model="m", gpus=0.5, options={"enforce_eager": True}),
    Expectation(metric="requests.completed", op=">=", value=10, line=3, text="x"),
    Expectation(metric="run.reason", op="==", value="done"),
    FaultSpec(at_ns=5, action="kill", target="s1", duration_ns=9, factor=2.0, options={"a": 1}),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_a_specification_is_json_both_ways(spec: Spec) -> None:
    assert msgspec.json.decode(msgspec.json.encode(spec), type=type(spec)) == spec


def test_defaults_are_not_written() -> None:
    assert msgspec.json.encode(SchedulerSpec()) == b"{}"


def test_a_specification_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        WHOLE.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("broken", [b'{"order":"lifo"}', b'{"policy":7}', b'{"ageing_ms":"long"}'])
def test_a_value_outside_its_set_or_type_is_refused(broken: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(broken, type=SchedulerSpec)
