from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, pre_tokenizers

from anyserve.runtime.models.gguf_llama import convert, hub_name, unpermute_rope
from anyserve.runtime.models.safetensors import TensorSpec, to_bfloat16, write_bfloat16
from anyserve.runtime.models.store import ModelProgress

gguf = pytest.importorskip("gguf")
HIDDEN, HEADS, KV_HEADS, INNER, VOCAB = 8, 2, 1, 16, 260


def permute_rope(weights: Any, heads: int) -> Any:
    """What writers of GGUF files do to the rows of q and k."""
    rows = weights.shape[0]
    return (
        weights.reshape(heads, 2, rows // heads // 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


def as_float(patterns: Any) -> Any:
    return (np.asarray(patterns, np.uint16).astype(np.uint32) << 16).view(np.float32)


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    random = np.random.default_rng(0)

    def matrix(*shape: int) -> Any:
        return as_float(to_bfloat16(random.standard_normal(shape).astype(np.float32)))

    kv = HIDDEN // HEADS * KV_HEADS
    return {
        "model.embed_tokens.weight": matrix(VOCAB, HIDDEN),
        "model.norm.weight": matrix(HIDDEN),
        "model.layers.0.input_layernorm.weight": matrix(HIDDEN),
        "model.layers.0.post_attention_layernorm.weight": matrix(HIDDEN),
        "model.layers.0.self_attn.q_proj.weight": matrix(HIDDEN, HIDDEN),
        "model.layers.0.self_attn.k_proj.weight": matrix(kv, HIDDEN),
        "model.layers.0.self_attn.v_proj.weight": matrix(kv, HIDDEN),
        "model.layers.0.self_attn.o_proj.weight": matrix(HIDDEN, HIDDEN),
        "model.layers.0.mlp.gate_proj.weight": matrix(INNER, HIDDEN),
        "model.layers.0.mlp.up_proj.weight": matrix(INNER, HIDDEN),
        "model.layers.0.mlp.down_proj.weight": matrix(HIDDEN, INNER),
    }


_LAYER_PARTS = (
    "attn_norm",
    "ffn_norm",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
)
GGUF_NAMES = [
    "token_embd.weight",
    "output_norm.weight",
    *(f"blk.0.{part}.weight" for part in _LAYER_PARTS),
]


@pytest.fixture(scope="module")
def converted(
    weights: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[ModelProgress]]:
    source = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(str(source), "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<eos>", *alphabet, "th", "the", "<pad>"])
    writer.add_token_types([3, *[1] * (len(alphabet) + 2), 3])
    writer.add_token_merges(["t h", "th e"])
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(259)
    writer.add_chat_template("{{ messages[0].content }}")
    for name in GGUF_NAMES:
        data = weights[hub_name(name)]
        if "attn_q" in name:
            data = permute_rope(data, HEADS)
        if "attn_k" in name:
            data = permute_rope(data, KV_HEADS)
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    target = tmp_path_factory.mktemp("converted")
    seen: list[ModelProgress] = []
    convert(source, target, seen.append)
    return target, seen


def read_safetensors(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__")
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        assert entry["dtype"] == "BF16"
        tensors[name] = as_float(np.frombuffer(data[start:end], np.uint16)).reshape(entry["shape"])
    return tensors


def test_every_weight_comes_out_as_it_was_before_gguf(
    weights: dict[str, Any], converted: tuple[Path, list[ModelProgress]]
) -> None:
    got = read_safetensors(converted[0] / "model.safetensors")

    assert got.keys() == weights.keys()
    for name, values in weights.items():
        np.testing.assert_array_equal(got[name], values, err_msg=name)


def test_the_configuration_is_that_of_the_model(
    converted: tuple[Path, list[ModelProgress]],
) -> None:
    config = json.loads((converted[0] / "config.json").read_text())

    assert config["num_attention_heads"] == HEADS
    assert config["num_key_value_heads"] == KV_HEADS
    assert config["rope_theta"] == 5000.0
    assert config["rms_norm_eps"] == 1e-05
    assert config["vocab_size"] == VOCAB
    assert config["tie_word_embeddings"] is True
    assert config["eos_token_id"] == 0


def test_the_tokenizer_merges_and_keeps_special_tokens_whole(
    converted: tuple[Path, list[ModelProgress]],
) -> None:
    tokenizer = Tokenizer.from_file(str(converted[0] / "tokenizer.json"))
    encoded = tokenizer.encode("the 12<eos>")

    assert encoded.tokens == ["the", "Ġ", "1", "2", "<eos>"]
    assert tokenizer.decode(encoded.ids) == "the 12"
    config = json.loads((converted[0] / "tokenizer_config.json").read_text())
    assert (config["eos_token"], config["pad_token"]) == ("<eos>", "<pad>")
    assert config["chat_template"] == "{{ messages[0].content }}"


def test_progress_grows(converted: tuple[Path, list[ModelProgress]]) -> None:
    fractions = [progress.fraction for progress in converted[1]]

    assert fractions == sorted(fractions)
    assert len(fractions) == len(GGUF_NAMES)


def test_unpermute_undoes_permute() -> None:
    rows = np.arange(24, dtype=np.float32).reshape(12, 2)

    np.testing.assert_array_equal(unpermute_rope(permute_rope(rows, 3), 3), rows)


def test_bfloat16_rounds_to_nearest_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -2.5, 3.0e38], np.float32)

    assert as_float(to_bfloat16(values)).tolist() == [
        1.0,
        1.0,
        1.015625,
        -2.5,
        pytest.approx(3.0e38, rel=0.01),
    ]


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    spec = TensorSpec("w", (2, 2))

    with pytest.raises(ValueError, match="w: shape"):
        write_bfloat16(tmp_path / "x", [spec], [np.zeros((4,), np.float32)])


def test_an_unknown_tensor_is_named() -> None:
    with pytest.raises(ValueError, match=r"blk\.0\.rope_freqs"):
        hub_name("blk.0.rope_freqs.weight")
