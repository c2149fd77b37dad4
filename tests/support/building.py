"""Compiles the simulator into the store at argv[1], at the lowest priority. Exit status 3: a
compiler is missing, which standard output names.

A process of its own: it works while the tests wait for brokers and engines.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from anyserve.compiled.build import make_build
from anyserve.compiled.store import Store
from anyserve.errors import MissingDependencyError

MISSING = 3


def main() -> int:
    os.nice(19)
    try:
        make_build(Store(Path(sys.argv[1])), lambda _stage, _share: None)
    except MissingDependencyError as error:
        sys.stdout.write(error.message)
        return MISSING
    return 0


if __name__ == "__main__":
    sys.exit(main())
