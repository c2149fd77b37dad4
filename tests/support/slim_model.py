"""Slims a small model in a process of its own, and says as JSON what became of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

from anyserve.runtime.engines.vllm_memory import slim

ROWS, WIDTH = 8192, 128  # 2 MiB


def embedding() -> torch.nn.Module:
    """As vLLM has it after loading; without its constructor, which needs other processes."""
    layer: torch.nn.Module = VocabParallelEmbedding.__new__(VocabParallelEmbedding)
    torch.nn.Module.__init__(layer)
    weight = torch.randn(ROWS, WIDTH, dtype=torch.bfloat16)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
    return layer


def main(folder: Path) -> None:
    model = torch.nn.Module()
    model.as_filed, model.changed = embedding(), embedding()
    filed = {f"{name}.weight": layer.weight.clone() for name, layer in model.named_children()}
    filed["changed.weight"][0, 0] += 1  # as after a conversion that vLLM does while it loads
    save_file(filed, folder / "model.safetensors")
    given = {name: layer.weight.clone() for name, layer in model.named_children()}
    packed = {name: layer.cpu_linear for name, layer in model.named_children()}
    places = {name: layer.weight.data_ptr() for name, layer in model.named_children()}

    slim(model, folder)

    vector = torch.randn(3, WIDTH, dtype=torch.bfloat16)
    said = {}
    for name, layer in model.named_children():
        before = packed[name](vector, given[name], None)
        said[name] = {
            "same weights": torch.equal(layer.weight, given[name]),
            "mapped": layer.weight.data_ptr() != places[name],
            "packed later": layer.cpu_linear is not packed[name],
            "same products": torch.equal(layer.cpu_linear(vector, layer.weight, None), before),
        }
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
