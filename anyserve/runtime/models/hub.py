"""The tokenizer of a hub model: from the hub's cache on this machine, else from the hub itself.

vLLM downloads a hub model where it runs; an ingress needs its tokenizer alone, a few megabytes.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

_LOG = logging.getLogger(__name__)
FILES: Final = ("tokenizer*.json", "chat_template*", "special_tokens_map.json")
_TOKENIZER: Final = "tokenizer.json"


def hub_tokenizer(name: str, *, cache: Path | None = None) -> Path | None:
    """A folder with the tokenizer of the hub model `name` (owner/name); None where it is not to be
    had. `HF_HUB_OFFLINE` and the hub's other variables count. May block for a download.

    Args:
        name: the model's id.
        cache: the hub's cache directory, where it is not the usual one.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - half a second to import

    for local in (True, False):
        try:
            found = snapshot_download(
                name, cache_dir=cache, allow_patterns=list(FILES), local_files_only=local
            )
        except (OSError, ValueError) as error:  # absent, no network, no such model, no permission
            _LOG.debug(
                "the tokenizer of %s is not %s: %s", name, "here" if local else "there", error
            )
            continue
        folder = Path(found)
        if (folder / _TOKENIZER).is_file():
            return folder
    _LOG.warning("the tokenizer of %s is neither on this machine nor on the hub", name)
    return None
