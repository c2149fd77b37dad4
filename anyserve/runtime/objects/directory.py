"""Where a host's objects lie, and that nothing stays of them. Only the standard library: the guard
of a cluster's private directory uses this.

The directory is in shared memory, which the private directory is not. So the private directory
holds a link to it, and whoever removes the one removes the other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

PREFIX: Final = "anyserve-objects-"
LINK: Final = "objects"
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the directory in it is private


def new_object_directory() -> Path:
    """A private directory in shared memory, or among the temporary files where there is none."""
    shared = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=shared))


def linked_object_directory(private: Path) -> Path:
    """The object directory that goes with a private directory; made where there is none yet."""
    link = private / LINK
    with contextlib.suppress(OSError):
        return link.readlink()
    directory = new_object_directory()
    link.symlink_to(directory)
    return directory


def remove_object_directory(directory: Path) -> None:
    """Remove it with all objects; mapped ones stay readable for those who mapped them."""
    if directory.name.startswith(PREFIX):
        shutil.rmtree(directory, ignore_errors=True)


def remove_linked(private: Path) -> None:
    """Remove the object directory that goes with a private directory, if there is one."""
    with contextlib.suppress(OSError):
        remove_object_directory((private / LINK).readlink())
