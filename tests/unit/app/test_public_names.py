"""What `import anyserve` gives, and what it does not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import anyserve

SOURCE = ast.parse(Path(anyserve.__file__).read_text())


def test_all_names_are_there_and_no_others_are_public() -> None:
    assert sorted(anyserve.__all__) == anyserve.__all__
    assert all(getattr(anyserve, name) is not None for name in anyserve.__all__)
    assert set(anyserve.__all__) <= set(dir(anyserve))
    lazy = set(anyserve._HOMES)
    assert lazy == set(anyserve.__all__) - {"__version__"}


def test_type_checkers_see_the_same_names() -> None:
    blocks = [node for node in SOURCE.body if isinstance(node, ast.If)]
    typed = {
        alias.asname or alias.name
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == set(anyserve._HOMES)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        _ = anyserve.Nope


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import anyserve", "anyserve.core anyserve.app anyserve.errors msgspec asyncio"),
        ("from anyserve import App, Context, ObjRef", "numpy pydantic anyserve.runtime yaml typer"),
    ],
)
def test_importing_stays_light(statement: str, absent: str) -> None:
    check = f"import sys; {statement}; print([m for m in {absent.split()!r} if m in sys.modules])"
    said = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60
    )

    assert said.stdout.strip() == "[]"
