"""A build of the decision code, made once and kept between test runs as long as it fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyserve.compiled.build import make_build
from anyserve.compiled.store import Store
from anyserve.compiled.use import Standing, look
from anyserve.errors import MissingDependencyError


@pytest.fixture(scope="session")
def build_store(pytestconfig: pytest.Config) -> Store:
    cache = pytestconfig.cache
    assert cache is not None
    store = Store(Path(cache.mkdir("compiled")))
    if look({}, store)[0] is not Standing.IN_USE:
        try:
            make_build(store, lambda _stage, _share: None)
        except MissingDependencyError as error:
            pytest.skip(error.message)
    return store
