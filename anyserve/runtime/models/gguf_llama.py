"""Turns a GGUF file of a Llama-shaped model into the folder that vLLM loads.

Weights are dequantised to bfloat16; the tokenizer and its chat template are rebuilt from the
metadata. No torch, no transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anyserve.errors import MissingDependencyError
from anyserve.runtime.models.gguf_tokenizer import write_tokenizer
from anyserve.runtime.models.safetensors import Float32Array, TensorSpec, write_bfloat16
from anyserve.runtime.models.store import ModelProgress, Progress

_LAYER_NAMES: Mapping[str, str] = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP_NAMES: Mapping[str, str] = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The numbers of the model's architecture."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    context: int
    rope_theta: float
    norm_eps: float


def convert(gguf_path: Path, target: Path, progress: Progress) -> None:
    """Fill `target` with config, weights and tokenizer made from `gguf_path`.

    Raises:
        MissingDependencyError: The `gguf` package is not installed.
        ValueError: The file is not of a Llama-shaped model.
    """
    reader, dequantize = _open(gguf_path)
    meta = {name: field.contents() for name, field in reader.fields.items()}
    if meta.get("general.architecture") != "llama":
        raise ValueError(f"{gguf_path.name}: architecture {meta.get('general.architecture')}")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    shape = _shape(meta, int(tensors["token_embd.weight"].shape[1]))
    tied = "output.weight" not in tensors
    write_tokenizer(meta, target)
    _write_configs(meta, shape, target, tied=tied)

    specs = [
        TensorSpec(hub_name(name), tuple(int(n) for n in reversed(tensor.shape)))
        for name, tensor in tensors.items()
    ]

    def decoded() -> Iterator[Float32Array]:
        for done, (name, tensor) in enumerate(tensors.items()):
            progress(ModelProgress("weights", 0.1 + 0.85 * done / len(tensors)))
            yield _unpermuted(name, dequantize(tensor.data, tensor.tensor_type), shape)

    write_bfloat16(target / "model.safetensors", specs, decoded())


def hub_name(gguf_name: str) -> str:
    """Name of a tensor as the Hugging Face Llama classes call it.

    Raises:
        ValueError: There is no such tensor in a Llama-shaped model.
    """
    if gguf_name in _TOP_NAMES:
        return _TOP_NAMES[gguf_name]
    match gguf_name.split("."):
        case ["blk", layer, part, "weight"] if part in _LAYER_NAMES:
            return f"model.layers.{layer}.{_LAYER_NAMES[part]}.weight"
    raise ValueError(f"unknown tensor {gguf_name}")


def unpermute_rope(weights: Float32Array, heads: int) -> Float32Array:
    """Undo the row order that GGUF uses for rotary embeddings (interleaved pairs -> halves)."""
    rows = weights.shape[0]
    pairs = weights.reshape(heads, rows // heads // 2, 2, *weights.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weights.shape)


def _unpermuted(name: str, weights: Float32Array, shape: LlamaShape) -> Float32Array:
    if name.endswith("attn_q.weight"):
        return unpermute_rope(weights, shape.heads)
    if name.endswith("attn_k.weight"):
        return unpermute_rope(weights, shape.kv_heads)
    return weights.astype(np.float32, copy=False)


def _open(path: Path) -> tuple[Any, Any]:
    try:
        from gguf import GGUFReader  # noqa: PLC0415 - only this conversion needs it
        from gguf.quants import dequantize  # noqa: PLC0415
    except ImportError:
        raise MissingDependencyError(
            f"Reading {path.name} needs the package gguf.",
            code="gguf_missing",
            hint='pip install "anyserve[models]"',
        ) from None
    return GGUFReader(path), dequantize


def _shape(meta: Mapping[str, Any], vocab: int) -> LlamaShape:
    heads = int(meta["llama.attention.head_count"])
    return LlamaShape(
        layers=int(meta["llama.block_count"]),
        hidden=int(meta["llama.embedding_length"]),
        intermediate=int(meta["llama.feed_forward_length"]),
        heads=heads,
        kv_heads=int(meta.get("llama.attention.head_count_kv", heads)),
        vocab=vocab,
        context=int(meta["llama.context_length"]),
        rope_theta=float(meta.get("llama.rope.freq_base", 10000.0)),
        norm_eps=float(f"{meta['llama.attention.layer_norm_rms_epsilon']:.6g}"),
    )


def _write_configs(meta: Mapping[str, Any], shape: LlamaShape, target: Path, *, tied: bool) -> None:
    special = {
        "bos_token_id": meta.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": meta.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": meta.get("tokenizer.ggml.padding_token_id"),
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden // shape.heads,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        **special,
    }
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (target / "generation_config.json").write_text(json.dumps(special, indent=2) + "\n")
