"""A build of the decision code, made once and kept between test runs as long as it fits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import building
import pytest

from anyserve.compiled.store import Store
from anyserve.compiled.use import Standing, look

_Building = subprocess.Popen[str]
_BUILDING = pytest.StashKey[_Building]()


def _wants_it(item: pytest.Item) -> bool:
    return "build_store" in getattr(item, "fixturenames", ())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever wants the build goes last."""
    items.sort(key=_wants_it)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin at once where a test wants it: it takes a minute, most of which others only wait."""
    if session.config.option.collectonly:
        return
    wanted = any(map(_wants_it, session.items))
    store = _store(session.config)
    if wanted and look({}, store)[0] is not Standing.IN_USE:
        session.config.stash[_BUILDING] = subprocess.Popen(
            [sys.executable, building.__file__, str(store.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def pytest_unconfigure(config: pytest.Config) -> None:
    """A run that ends early does not leave it behind."""
    process = config.stash.get(_BUILDING, None)
    if process is not None:
        with process:
            process.kill()


def _store(config: pytest.Config) -> Store:
    assert config.cache is not None
    return Store(Path(config.cache.mkdir("compiled")))


@pytest.fixture(scope="session")
def build_store(pytestconfig: pytest.Config) -> Store:
    process = pytestconfig.stash.get(_BUILDING, None)
    if process is not None:
        said, _ = process.communicate()
        if process.returncode == building.MISSING:
            pytest.skip(said)
        assert process.returncode == 0, said
    return _store(pytestconfig)
