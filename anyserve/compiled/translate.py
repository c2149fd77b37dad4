"""The first half of a build, in a process of its own: mypyc makes C of the modules.

    python -P translate.py MODULE_FILE ...

Runs in a folder with copies of the sources (hence not as `-m anyserve...`: those are no package to
import from), leaves the C there and `libraries.json`, which says
what is to be made of it. mypyc ends the process where it finds an error; that is on stdout then.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

LIBRARIES: Final = "libraries.json"
_MYPY: Final = ("--config-file=", "--ignore-missing-imports", "--follow-imports=silent")
"""Whoever builds need not have the types of all that we use, nor our settings."""


def main(files: list[str]) -> None:
    """Translate these modules."""
    from mypyc.build import mypycify  # noqa: PLC0415 - an extra; only here

    libraries = mypycify(
        [*_MYPY, *files], opt_level="2", debug_level="0", multi_file=True, target_dir="c"
    )
    told = [
        {
            "name": library.name,
            "sources": library.sources,
            "include_dirs": library.include_dirs,
            "arguments": library.extra_compile_args,
        }
        for library in libraries
    ]
    Path(LIBRARIES).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
