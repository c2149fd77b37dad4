"""What a zygote imports, and that it forks only while CUDA is untouched."""

from __future__ import annotations

import logging
import os
import sys
import types
from pathlib import Path

import pytest

from anyserve.runtime.engines.detect import VllmBuild
from anyserve.runtime.worker.preloads import can_still_fork, import_each, preload_modules


def torch(*, bad_fork: bool) -> types.ModuleType:
    module = types.ModuleType("torch")
    parent = os.getpid()

    def in_bad_fork() -> bool:
        # As torch: only a child can have inherited a CUDA that it cannot use.
        return bad_fork and os.getpid() != parent

    module.cuda = types.SimpleNamespace(_is_in_bad_fork=in_bad_fork)  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize("started", [False, True])
def test_a_zygote_in_which_cuda_started_forks_no_more(started: bool) -> None:
    assert can_still_fork({"torch": torch(bad_fork=started)}) is not started


def test_without_torch_there_is_nothing_to_break() -> None:
    assert can_still_fork({})


def test_a_torch_that_cannot_tell_is_not_trusted(capfd: pytest.CaptureFixture[str]) -> None:
    module = types.ModuleType("torch")
    module.cuda = types.SimpleNamespace()  # type: ignore[attr-defined]

    assert not can_still_fork({"torch": module})


def test_each_build_imports_its_own_worker() -> None:
    cpu, cuda = (preload_modules("vllm", build) for build in (VllmBuild.CPU, VllmBuild.CUDA))

    assert "vllm.v1.worker.cpu_worker" in cpu
    assert "vllm.v1.worker.gpu_worker" in cuda
    assert not [name for name in cuda if "cpu" in name or "attention" in name]


def test_a_module_that_a_version_lacks_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, text in (("engine_broken", "1 / 0"), ("engine_whole", "")):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    with caplog.at_level(logging.INFO):
        import_each(["engine_absent", "engine_broken", "engine_whole"])

    assert [(record.levelname, bool(record.exc_info)) for record in caplog.records] == [
        ("INFO", False),
        ("ERROR", True),
    ]
    assert sys.modules.pop("engine_whole", None) is not None
