"""What a zygote imports once for all its workers, and whether it may fork afterwards."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Final

from anyserve.runtime.engines.detect import VllmBuild

_log = logging.getLogger(__name__)
_BOTH: Final = (
    "vllm",
    "vllm.v1.engine.llm_engine",
    "vllm.v1.executor.uniproc_executor",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.models.bert",
    "vllm.model_executor.model_loader.default_loader",
    "vllm.renderers.hf",
)
_CPU: Final = (
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.attention.backends.cpu_attn",
    "vllm.triton_utils.dispatcher",  # since 0.31
    "compressed_tensors",
)
# No attention backend here: which one is taken depends on the GPU, and asking starts CUDA.
_CUDA: Final = ("vllm.v1.worker.gpu_worker",)
NAMES: Final = ("vllm",)


def preload_modules(name: str, build: VllmBuild) -> Sequence[str]:
    """What the engine `name` imports while it starts, in this build of vLLM."""
    assert name in NAMES
    return _BOTH + (_CUDA if build is VllmBuild.CUDA else _CPU)


def import_each(modules: Iterable[str]) -> None:
    """Import what there is; what is missing or broken shows when it is used."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            _log.info("not to be preloaded in this version: %s", error.name)
        except Exception:  # noqa: BLE001 - a foreign library's import may raise anything
            _log.exception("cannot preload %s", module)


def can_still_fork(modules: Mapping[str, ModuleType] = sys.modules) -> bool:
    """Whether a forked child could use CUDA: no import has started it in this process.

    torch knows only in the child, so one is forked to ask.
    """
    torch = modules.get("torch")
    if torch is None:
        return True
    pid = os.fork()
    if pid == 0:
        bad = True
        try:
            bad = bool(torch.cuda._is_in_bad_fork())  # noqa: SLF001 - torch has no other answer
        finally:
            os._exit(int(bad))
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == 0
