"""What is compiled, from which sources, and when a build of it is used."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.metadata
import shutil
import sys
from pathlib import Path

import pytest

from anyserve.compiled import use
from anyserve.compiled.build import find_compiler, mypyc_version
from anyserve.compiled.plain import rewritten_sources
from anyserve.compiled.sources import LEFT_OUT, PACKAGE, compiled_modules, digest, source_files
from anyserve.compiled.store import KEPT, NOTE, Build, Store
from anyserve.compiled.use import SWITCH, CompiledFinder, Standing, look, switch_on
from anyserve.errors import MissingDependencyError


def build(key: str) -> Build:
    modules = {"anyserve.core.seen": "anyserve/core/seen.so", "abc__mypyc": "abc__mypyc.so"}
    return Build(key, "abc__mypyc", modules, "2.4.1", 30.0)


def made(store: Store, key: str) -> Build:
    folder = store.root / f"under-way-{key}"
    folder.mkdir(parents=True)
    store.add(build(key), folder)
    return build(key)


def test_what_is_left_out_is_there() -> None:
    assert [name for name in sorted(LEFT_OUT) if not (PACKAGE / name).is_file()] == []


def test_no_class_of_msgspec_is_compiled() -> None:
    """Compiled, it would forget what its fields hold and be decoded wrongly."""
    texts = {str(path): (PACKAGE / path).read_text() for path in compiled_modules().values()}
    texts |= rewritten_sources(PACKAGE)

    assert len(texts) > 50
    assert [path for path, text in texts.items() if "msgspec.Struct" in text] == []


def untidy(tree: ast.Module) -> list[int]:
    """The lines of yields that something is to be tidied up after; context managers aside, which
    are always gone through."""
    found = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or "contextmanager" in [
            ast.unparse(one) for one in function.decorator_list
        ]:
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Try | ast.With):
                yields = (ast.Yield, ast.YieldFrom)
                found += [one.lineno for one in ast.walk(node) if isinstance(one, yields)]
    return found


def test_no_generator_of_a_compiled_module_tidies_up() -> None:
    """Compiled, one that is dropped half-way never comes to its `finally`."""
    paths = compiled_modules().values()
    found = {path: untidy(ast.parse((PACKAGE / path).read_text())) for path in paths}

    assert {str(path): lines for path, lines in found.items() if lines} == {}
    assert untidy(ast.parse("def f():\n  try:\n    yield 1\n  finally:\n    pass")) == [3]


def test_what_compiled_modules_are_made_from_is_all_they_import(tmp_path: Path) -> None:
    seen = {path.relative_to(PACKAGE).parts[0] for path in source_files()}

    assert {"core", "sim", "workload", "telemetry", "errors.py", "compiled"} <= seen


@pytest.mark.parametrize("changed", ["core/order.py", "errors.py", "compiled/translate.py"])
def test_any_change_of_a_source_asks_for_another_build(tmp_path: Path, changed: str) -> None:
    copy = tmp_path / "anyserve"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "runtime", "tui"))
    before = digest(copy)
    assert before == digest()

    (copy / changed).write_text((copy / changed).read_text() + "\n")
    assert digest(copy) != before


def test_a_build_is_found_by_its_key_once_it_is_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert (store.find("a"), store.keys()) == (None, [])

    assert store.find("a") is None
    made(store, "a")
    assert store.find("a") == build("a")

    (store.folder("a") / NOTE).write_text('{"key": "a"')
    assert store.find("a") is None
    (store.folder("a") / NOTE).write_text('{"key": "a"}')
    assert store.find("a") is None


def test_a_build_that_was_renamed_is_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made(store, "a")
    store.folder("a").rename(store.folder("b"))

    assert store.find("b") is None


def test_the_newest_builds_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(KEPT + 2):
        made(store, f"k{number}")

    assert sorted(store.keys()) == [f"k{number}" for number in range(2, KEPT + 2)]
    assert store.remove_all() == KEPT
    assert not tmp_path.exists()


def test_a_build_of_other_sources_is_stale(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert look({}, store) == (Standing.NEVER_BUILT, None)
    made(store, "other")

    assert look({}, store) == (Standing.STALE, None)


def test_a_build_that_lacks_a_module_is_stale(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made(store, digest())

    assert look({}, store) == (Standing.STALE, None)


@pytest.mark.parametrize("word", ["0", "no", "OFF", "false"])
def test_the_environment_switches_it_off(tmp_path: Path, word: str) -> None:
    assert look({SWITCH: word}, Store(tmp_path)) == (Standing.SWITCHED_OFF, None)


def test_a_process_that_has_loaded_the_sources_stays_with_them(tmp_path: Path) -> None:
    importlib.import_module("anyserve.core.seen")
    finders = list(sys.meta_path)

    if not use.in_use():
        assert switch_on({}, Store(tmp_path)) is Standing.TOO_LATE
    assert sys.meta_path == finders


def test_a_build_that_does_not_load_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    found = made(store, "a")
    (store.folder("a") / "abc__mypyc.so").write_bytes(b"no library")
    monkeypatch.setattr(use, "in_use", lambda: False)
    monkeypatch.setattr(use, "compiled_modules", dict)
    monkeypatch.setattr(use, "look", lambda *_: (Standing.IN_USE, found))
    finders = list(sys.meta_path)

    assert switch_on({}, store) is Standing.BROKEN
    assert sys.meta_path == finders


def test_the_finder_finds_the_modules_of_its_build_and_nothing_else(tmp_path: Path) -> None:
    finder = CompiledFinder(build("a"), tmp_path)
    spec = finder.find_spec("anyserve.core.seen")

    assert spec is not None
    assert isinstance(spec.loader, importlib.machinery.ExtensionFileLoader)
    assert spec.origin == str(tmp_path / "anyserve" / "core" / "seen.so")
    assert finder.find_spec("anyserve.core.messages") is None
    assert finder.find_spec("json") is None


def test_a_missing_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")

    with pytest.raises(
        MissingDependencyError, match=r"no C compiler \(no-such-compiler\)"
    ) as caught:
        find_compiler()
    assert caught.value.code == "no_compiler"
    assert "CC=" in caught.value.hint


def test_a_missing_mypyc_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("anyserve.compiled.build.version", version)

    with pytest.raises(MissingDependencyError) as caught:
        mypyc_version()
    assert (caught.value.code, caught.value.exit_code) == ("no_mypyc", 5)
