from __future__ import annotations

import logging
from pathlib import Path

import pytest

from anyserve.core.spec import EngineSpec
from anyserve.runtime.models import codec, hub
from anyserve.runtime.models.hub import hub_tokenizer


@pytest.fixture
def cache(tokenizer_folder: Path, tmp_path: Path) -> Path:
    """The hub's cache as it is after vLLM has loaded owner/name."""
    model = tmp_path / "models--owner--name"
    snapshot = model / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0" * 40)
    for file in tokenizer_folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_what_the_engine_has_downloaded_is_found(cache: Path) -> None:
    folder = hub_tokenizer("owner/name", cache=cache)

    assert folder is not None
    assert (folder / "tokenizer.json").is_file()


def test_what_is_nowhere_is_none(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with caplog.at_level(logging.WARNING, hub.__name__):
        assert hub_tokenizer("owner/other", cache=cache) is None
    assert "owner/other" in caplog.text


def test_hub_models_of_vllm_have_their_own_tokenizer(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = hub_tokenizer("owner/name", cache=cache)
    monkeypatch.setattr(codec, "hub_tokenizer", {"owner/name": found}.__getitem__)

    real = codec.load_tokenizer(EngineSpec(kind="vllm", model="owner/name"))
    imitated = codec.load_tokenizer(EngineSpec(kind="model", model="owner/name"))

    assert real is not None
    assert real.has_chat_template
    assert imitated is None  # nothing is downloaded for what computes nothing
