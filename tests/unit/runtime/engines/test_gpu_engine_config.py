"""What an engine on GPUs is told: its devices, its memory, its turn. No CUDA is needed for that."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anyserve.core.placement import Devices
from anyserve.core.spec import EngineSpec
from anyserve.runtime.engines.base import EngineConfig, EngineKind
from anyserve.runtime.engines.config import engine_config
from anyserve.runtime.engines.gpu_turn import gpu_turn
from anyserve.runtime.engines.vllm import gpu_args, prepare_environment
from anyserve.runtime.models.catalog import ModelTask
from anyserve.runtime.models.resolve import ModelSource, ResolvedModel

HALF = Devices(indices=(1,), share=0.5, memory_share=0.45)
PAIR = Devices(indices=(0, 2), share=1.0, memory_share=0.9)
MODEL = ResolvedModel("/models/m", "m", ModelTask.GENERATE, ModelSource.LOCAL)


def configured(spec: EngineSpec, devices: Devices | None, turn: str | None = None) -> EngineConfig:
    return engine_config(spec, MODEL, devices=devices, gpu_turn=turn)


def test_a_share_becomes_visible_devices_and_memory() -> None:
    config = configured(EngineSpec(gpus=0.5), HALF, "/locks/1.lock")

    assert config.cuda_visible_devices == "1"
    assert config.gpu_turn == "/locks/1.lock"
    assert gpu_args(config) == {"gpu_memory_utilization": 0.45}


def test_several_gpus_are_tensor_parallel() -> None:
    config = configured(EngineSpec(gpus=2), PAIR)

    assert (config.cuda_visible_devices, config.gpus) == ("0,2", 2)
    assert gpu_args(config) == {
        "gpu_memory_utilization": 0.9,
        "tensor_parallel_size": 2,
        "distributed_executor_backend": "mp",
    }


def test_an_even_share_counts_like_one_that_was_asked_for() -> None:
    assert configured(EngineSpec(gpus=0), HALF).gpus == 0.5


def test_without_devices_vllm_decides() -> None:
    config = configured(EngineSpec(), None)

    assert (config.cuda_visible_devices, config.gpu_memory_share) == (None, None)
    assert gpu_args(config) == {}


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    copy = dict(os.environ)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        copy.pop(name, None)
    monkeypatch.setattr(os, "environ", copy)
    return copy


def test_the_worker_sees_its_devices_only_counted_as_nvidia_smi_does(
    environ: dict[str, str],
) -> None:
    prepare_environment(configured(EngineSpec(gpus=2), PAIR))

    assert environ["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_a_worker_on_the_cpu_leaves_cuda_alone(environ: dict[str, str]) -> None:
    prepare_environment(EngineConfig(kind=EngineKind.VLLM))

    assert "CUDA_VISIBLE_DEVICES" not in environ


def never() -> None:
    pytest.fail("nobody is before us")


def test_engines_on_one_gpu_take_turns(tmp_path: Path) -> None:
    path = str(tmp_path / "0.lock")
    waits, order = threading.Event(), []

    def load(name: str, waiting: Callable[[], Any]) -> None:
        with gpu_turn(path, waiting):
            order.append(name)

    with gpu_turn(path, never):
        second = threading.Thread(target=load, args=("second", waits.set))
        second.start()
        assert waits.wait(20)
        order.append("first")
    second.join(20)

    assert order == ["first", "second"]
    load("third", never)


def test_a_turn_ends_where_loading_fails(tmp_path: Path) -> None:
    path = str(tmp_path / "0.lock")
    with pytest.raises(MemoryError), gpu_turn(path, never):
        raise MemoryError
    with gpu_turn(path, never):
        pass


def test_an_engine_with_a_gpu_to_itself_waits_for_nobody() -> None:
    with gpu_turn(None, never):
        pass
