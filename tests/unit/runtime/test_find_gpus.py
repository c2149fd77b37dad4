"""GPUs as nvidia-smi tells them, without one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from anyserve.core.placement import GpuInfo
from anyserve.errors import StartError
from anyserve.runtime.gpus import COMMAND, Gpu, find_gpus, run_command, visible_names

MIB = 1 << 20
TWO = """\
0, NVIDIA A10, 23028, 22508, 580.105.08, GPU-8932f937-d72c-4106-c12f-20bd9faed9f6
1, NVIDIA H200, 143771, 143157, 580.105.08, GPU-1b2c3d4e-0000-1111-2222-333344445555
"""


def answer(text: str | None) -> list[Gpu]:
    return find_gpus({}, lambda _command: text)


def seen(visible: str) -> list[int]:
    gpus = find_gpus({"CUDA_VISIBLE_DEVICES": visible}, lambda _command: TWO)
    return [gpu.info.index for gpu in gpus]


def test_every_line_is_a_gpu() -> None:
    first, second = answer(TWO)

    assert first.info == GpuInfo(0, 23028 * MIB, 22508 * MIB, "NVIDIA A10")
    assert first.driver == "580.105.08"
    assert second.info.index == 1
    assert second.uuid.startswith("GPU-1b2c")


@pytest.mark.parametrize("said", [None, "", "\n"])
def test_no_answer_is_no_gpu(said: str | None) -> None:
    assert answer(said) == []


@pytest.mark.parametrize(
    "line",
    [
        "No devices were found",
        "0, NVIDIA GB10, [N/A], [N/A], 580.142, GPU-1",
        "0, NVIDIA A10, 23028, 22508, 580.105.08",
        "0, NVIDIA A10, 23028 MiB, 22508 MiB, 580.105.08, GPU-1",
        "x, NVIDIA A10, 23028, 22508, 580.105.08, GPU-1",
        "0, NVIDIA A10, 100, 200, 580.105.08, GPU-1",
        "0, NVIDIA A10, 0, 0, 580.105.08, GPU-1",
    ],
)
def test_what_is_not_understood_is_shown(line: str) -> None:
    with pytest.raises(StartError) as refused:
        answer(line)
    assert refused.value.code == "nvidia_smi"
    assert line in refused.value.message


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        ("0,1", [0, 1]),
        ("1, 0", [1, 0]),
        ("1", [1]),
        ("7", []),
        ("0,7,1", [0]),
        ("0,-1,1", [0]),
        ("0,0", [0]),
        ("GPU-1b2c3d4e", [1]),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,1", [0, 1]),
        ("GPU-", []),
        ("nonsense", []),
    ],
)
def test_an_outer_mask_is_read_as_cuda_reads_it(visible: str, indices: list[int]) -> None:
    assert seen(visible) == indices


@pytest.mark.parametrize("visible", ["", "-1", " "])
def test_an_empty_mask_hides_all_without_asking(visible: str) -> None:
    def never(_command: Sequence[str]) -> str | None:
        pytest.fail("nvidia-smi need not run")

    assert find_gpus({"CUDA_VISIBLE_DEVICES": visible}, never) == []


def test_a_slice_is_refused_by_name() -> None:
    with pytest.raises(StartError, match="a slice of a GPU, MIG-3f") as refused:
        seen("MIG-3f")
    assert refused.value.code == "gpu_slice"


def test_no_mask_is_not_an_empty_one() -> None:
    assert visible_names({}) is None
    assert visible_names({"CUDA_VISIBLE_DEVICES": ""}) == ()


def test_a_command_that_is_not_there_or_fails_says_nothing() -> None:
    assert run_command(["no-such-program-of-nvidia"]) is None
    assert run_command([sys.executable, "-c", "raise SystemExit(9)"]) is None
    assert run_command([sys.executable, "-c", "print('x')"]) == "x\n"


def test_the_command_asks_for_numbers_only() -> None:
    assert COMMAND[0] == "nvidia-smi"
    assert "noheader,nounits" in COMMAND[2]
