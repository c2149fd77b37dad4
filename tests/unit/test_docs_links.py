"""Every file that README and docs point at is there, and every page can be found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
CODE = re.compile(r"`([^`\n]+)`")
COMMAND_FILE = re.compile(r"\b((?:scenarios|examples)/[\w-]+\.yaml)\b")
FILE = re.compile(
    r"(?:[\w.-]+/)*[\w-]+\.(?:md|py)"  # a page or a module, by its path or its name
    r"|(?:[\w-]+/)+(?:[\w.-]+\.(?:yaml|json|sh))?"  # a directory, or data in one
    r"|(?:anyserve|benchmarks|core|docs|examples|runtime|scenarios|tests)/[\w./-]+"
)
MADE_BY_USE = ("runs/", "logs/")
"""What exists only after something ran."""


def mentioned(text: str) -> set[str]:
    """Paths of this repository that a page names: links, code, and files in command lines."""
    codes = {code for code in CODE.findall(text) if FILE.fullmatch(code)}
    links = {link for link in LINK.findall(text) if "://" not in link}
    return {
        name
        for name in links | codes | set(COMMAND_FILE.findall(text))
        if not name.startswith(MADE_BY_USE)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_that_is_named_exists(page: Path) -> None:
    names = mentioned(page.read_text(encoding="utf-8"))

    assert {name for name in names if not exists(name, page)} == set()


def exists(name: str, page: Path) -> bool:
    """Seen from the page, the root or the package; a bare module may be anywhere in it."""
    places = (page.parent, ROOT, ROOT / "anyserve", ROOT / "docs")
    if any((place / name).exists() for place in places):
        return True
    return name.endswith(".py") and "/" not in name and any((ROOT / "anyserve").rglob(name))


def test_names_are_found_in_the_pages_at_all() -> None:
    text = "see `docs/a.md`, [b](b.md#part), `core/`, `x.y`, `a/b`, `tests/d`, `e.py`, `runs/f/`"
    text += "\n$ anyserve up scenarios/c.yaml"

    files = {"docs/a.md", "b.md", "core/", "tests/d", "e.py", "scenarios/c.yaml"}
    assert mentioned(text) == files


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md")}

    assert {page for page in pages if f"`{page}`" not in readme} == set()
