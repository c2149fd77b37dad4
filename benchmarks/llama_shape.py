"""A model folder of Llama 3.1 8B's shape, without its weights: for timing engines on a GPU.

    python benchmarks/llama_shape.py                              # runs/llama-3.1-8b-shape
    anyserve calibrate --model runs/llama-3.1-8b-shape --option load_format=dummy

How long a step takes depends on the shape of the weights, not on what is in them; vLLM makes them
up (`load_format: dummy`), so that nothing has to be downloaded. Sizes: the model's card. The
tokenizer is SmolLM2's, filled up to as many words.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from anyserve.runtime.models.resolve import resolve_model

ROOT = Path(__file__).parents[1]
WORDS = 128256
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "torch_dtype": "bfloat16",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": WORDS,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-05,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def make(folder: Path) -> None:
    """Write the folder."""
    source = Path(resolve_model("smollm2-135m").path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    shutil.copy(source / "tokenizer_config.json", folder)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words |= {f"<word {number}>": number for number in range(len(words), WORDS)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "runs" / "llama-3.1-8b-shape")
