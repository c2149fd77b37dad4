"""A way around wrong attention in vLLM's CPU build.

With bfloat16 on a CPU with AMX tiles, vLLM 0.32 chooses an attention kernel that reads prompts of
more than 32 tokens wrongly: SmolLM2-135M answers a chat with other words than by float32, by the
AVX-512 kernel, or by transformers, which all agree. The AVX-512 kernel costs about as much.
"""

from __future__ import annotations

import logging
from functools import wraps
from typing import Any

_log = logging.getLogger(__name__)


def avoid_amx_attention() -> None:
    """Let vLLM choose its vector kernel where it would choose the one for AMX tiles.

    To be called in a worker before its engine is built. Safe to call twice, and where this vLLM has
    no such choice.
    """
    try:
        from vllm.v1.attention.backends import cpu_attn  # noqa: PLC0415 - only where vLLM runs
    except ImportError:
        return
    choose = getattr(cpu_attn, "_get_attn_isa", None)
    if choose is None or hasattr(choose, "__wrapped__"):
        return

    @wraps(choose)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        isa = choose(*args, **kwargs)
        return "vec" if isa == "amx" else isa

    cpu_attn._get_attn_isa = chosen  # noqa: SLF001 - vLLM has no setting for it
    _log.info("attention by vector instructions, not by AMX tiles")
