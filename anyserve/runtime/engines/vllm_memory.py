"""Memory that vLLM takes without need: 250 MB per engine of a small model on the CPU.

Each was found in the memory maps of a worker; docs/benchmarks.md has the figures.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

_WORTH_MAPPING_BYTES: Final = 1 << 20
_log = logging.getLogger(__name__)


def prepare_to_fork() -> None:
    """Do now, once, what would make each forked worker copy memory that it could share.

    For the CPU build. It looks for kernels to replace through every attribute of every module, and
    its logging through every logger: that writes a reference count into each, over 100 MB of pages.
    """
    from vllm import logger  # noqa: PLC0415 - heavy; only where vLLM runs
    from vllm.config.logging import LoggingConfig  # noqa: PLC0415
    from vllm.platforms import current_platform  # noqa: PLC0415

    logger.configure_logging_if_needed(LoggingConfig())
    current_platform.register_triton_kernel_overrides()
    current_platform.register_triton_kernel_overrides = _nothing_to_bind


def _nothing_to_bind() -> None:
    pass


def use_one_tokenizer() -> None:
    """Keep vLLM from copying its tokenizer for threads that render prompts: ours come as ids."""
    try:
        from vllm.renderers import hf  # noqa: PLC0415
    except ImportError:
        return
    if hasattr(hf, "maybe_make_thread_pool"):
        hf.maybe_make_thread_pool = _no_thread_pool


def _no_thread_pool(tokenizer: Any, _copies: int = 1) -> Any:
    return tokenizer


def slim(model: Any, folder: Path) -> None:
    """Take from a loaded model what it holds twice; it computes the same numbers."""
    _pack_when_used(model)
    _map_weights(model, folder)


def _pack_when_used(model: Any) -> None:
    """Pack token embeddings only for models that multiply by them: vLLM does so for all."""
    try:
        from vllm.model_executor.layers.utils import (  # noqa: PLC0415
            dispatch_cpu_unquantized_gemm,
        )
        from vllm.model_executor.layers.vocab_parallel_embedding import (  # noqa: PLC0415
            VocabParallelEmbedding,
        )
    except ImportError:
        return

    def unpacked(layer: Any) -> Any:
        def linear(*args: Any) -> Any:
            dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
            return layer.cpu_linear(*args)

        return linear

    for layer in model.modules():
        # Not its subclass, the head, which is there to multiply.
        if type(layer) is VocabParallelEmbedding and hasattr(layer, "cpu_linear"):
            layer.cpu_linear = unpacked(layer)


def _map_weights(model: Any, folder: Path) -> None:
    """Read weights that are as in the model's files from these: the system keeps them once."""
    import torch  # noqa: PLC0415
    from safetensors import safe_open  # noqa: PLC0415

    large = {
        name: weight
        for name, weight in model.named_parameters()
        if weight.numel() * weight.element_size() >= _WORTH_MAPPING_BYTES
    }
    for path in sorted(folder.glob("*.safetensors")) if large else ():
        with safe_open(path, "pt") as read:
            same = [
                name
                for name in large.keys() & set(read.keys())
                if _equal(torch, large[name], read.get_tensor(name))
            ]
        # Opened again: pages that were compared count as this process's until they are given up.
        with safe_open(path, "pt") as mapped:
            for name in same:
                large[name].data = mapped.get_tensor(name)
                _log.info("%s is read from %s", name, path)


def _equal(torch: Any, ours: Any, theirs: Any) -> bool:
    alike = ours.dtype == theirs.dtype and ours.shape == theirs.shape
    return alike and bool(torch.equal(ours, theirs))
