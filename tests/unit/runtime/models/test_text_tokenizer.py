from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from anyserve.errors import MissingDependencyError
from anyserve.runtime.models.tokenizers import ChatTemplateError, TextTokenizer


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> TextTokenizer:
    return TextTokenizer(tokenizer_folder)


def test_text_survives_the_way_there_and_back(tokenizer: TextTokenizer) -> None:
    text = "The tide, 1234 times: é, 😀."

    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_conversation_is_written_by_the_models_template(tokenizer: TextTokenizer) -> None:
    messages = [{"role": "user", "content": "Hello"}]

    assert tokenizer.render_chat(messages) == "<|start|>user\nHello<|end|>\n<|start|>assistant\n"
    assert tokenizer.render_chat(messages, generation_prompt=False).endswith("<|end|>\n")
    ids = tokenizer.encode_chat(messages)
    assert ids.count(tokenizer.encode("<|start|>")[0]) == 2
    assert "<|start|>" not in tokenizer.decode(ids)
    assert tokenizer.decode(ids, skip_special=False) == tokenizer.render_chat(messages)


def test_a_template_that_refuses_says_why(tokenizer: TextTokenizer) -> None:
    with pytest.raises(ChatTemplateError, match="role wizard"):
        tokenizer.render_chat([{"role": "wizard", "content": "x"}])


def test_a_template_cannot_reach_into_python(tokenizer_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")

    with pytest.raises(ChatTemplateError):
        TextTokenizer(tmp_path).render_chat([])


def test_a_model_without_a_template_says_so(tokenizer_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    plain = TextTokenizer(tmp_path)

    assert not plain.has_chat_template
    with pytest.raises(ChatTemplateError):
        plain.render_chat([])


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"tokenizer\.json"):
        TextTokenizer(tmp_path)


def test_tokenizers_load_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, anyserve.runtime.models.tokenizers, anyserve.runtime.worker.client;"
        "print([m for m in ('torch', 'transformers', 'vllm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_single_tokens_read_as_their_bytes_even_within_a_character(
    tokenizer: TextTokenizer,
) -> None:
    text = "é 世界 😀 and\n\ttabs"
    ids = tokenizer.encode(text)

    parts = [tokenizer.token_bytes(token) for token in ids]

    assert b"".join(parts) == text.encode()
    assert any(len(part.decode("utf-8", "ignore")) == 0 for part in parts)  # there was a half one


def with_template(folder: Path, into: Path, template: str) -> TextTokenizer:
    (into / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (into / "chat_template.jinja").write_text(template)
    return TextTokenizer(into)


def test_template_is_told_of_the_tools(tokenizer_folder: Path, tmp_path: Path) -> None:
    template = "{% if tools %}{{ tools | tojson }}{% endif %}{{ messages[0].content }}"
    made = with_template(tokenizer_folder, tmp_path, template)
    messages = [{"role": "user", "content": "hi"}]

    assert made.render_chat(messages, tools=[{"name": "look"}]) == '[{"name": "look"}]hi'
    assert made.render_chat(messages) == "hi"


@pytest.mark.parametrize("template", ["{{ messages[0].content + 1 }}", "{{ messages[9].role }}"])
def test_template_that_stumbles_over_messages_refuses_them(
    tokenizer_folder: Path, tmp_path: Path, template: str
) -> None:
    made = with_template(tokenizer_folder, tmp_path, template)

    with pytest.raises(ChatTemplateError, match="refused the messages"):
        made.render_chat([{"role": "user", "content": "hi"}])
