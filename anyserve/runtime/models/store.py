"""The cache of models made ready: one folder per model, complete or absent, and checksummed.

A folder is filled beside its final place and renamed into it, so a crash leaves no half model.
Two processes that want the same model at once take turns on a lock file; the second finds the
work done.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import platformdirs

from anyserve.errors import StartError

MANIFEST = "anyserve-manifest.json"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelProgress:
    """How far making a model ready has come."""

    stage: str
    fraction: float
    """Between 0 and 1, over the whole work."""


Progress = Callable[[ModelProgress], None]
Build = Callable[[Path, Progress], None]
"""Fills an empty folder with the model's files."""


class FileEntry(msgspec.Struct, frozen=True):
    """What is known of one cached file."""

    sha256: str
    size: int
    mtime_ns: int


class Manifest(msgspec.Struct, frozen=True):
    """What a cached model folder must contain."""

    source: str
    files: dict[str, FileEntry]


def default_cache_dir() -> Path:
    """The user's cache folder for models."""
    return platformdirs.user_cache_path("anyserve", appauthor=False) / "models"


class ModelStore:
    """The model folders under one cache directory."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else default_cache_dir()

    def folder(self, key: str) -> Path:
        """Where the model of this key lies once it is ready."""
        return self.root / key

    def ready(self, key: str, *, full: bool = False) -> bool:
        """Whether the folder holds what its manifest says (`full` reads every byte)."""
        return _intact(self.folder(key), full=full)

    def get(self, key: str, source: str, build: Build, progress: Progress) -> Path:
        """Return the folder of `key`, building it first if it is absent or damaged.

        Raises:
            StartError: The cache cannot be written (no space, no permission).
        """
        folder = self.folder(key)
        if _intact(folder, full=False):
            return folder
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with _lock(self.root / f".{key}.lock", progress):
                if not _intact(folder, full=False):
                    self._make(folder, source, build, progress)
        except OSError as error:
            raise StartError(
                f"Cannot write the model cache {self.root}: {error.strerror or error}.",
                code="model_cache",
                hint="Free some space there, or set XDG_CACHE_HOME to another disk.",
            ) from error
        return folder

    def _make(self, folder: Path, source: str, build: Build, progress: Progress) -> None:
        for left in self.root.glob(f".{folder.name}.part-*"):  # of a process that died
            shutil.rmtree(left, ignore_errors=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.part-", dir=self.root))
        try:
            build(part, progress)
            progress(ModelProgress("checksums", 0.97))
            manifest = Manifest(source, {name: _entry(part / name) for name in _names(part)})
            (part / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
            if folder.exists():
                shutil.rmtree(folder)
            part.rename(folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        progress(ModelProgress("ready", 1.0))


def _names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def _entry(path: Path) -> FileEntry:
    stat = path.stat()
    return FileEntry(sha256=_sha256(path), size=stat.st_size, mtime_ns=stat.st_mtime_ns)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _intact(folder: Path, *, full: bool) -> bool:
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        return all(_matches(folder / name, want, full) for name, want in manifest.files.items())
    except (OSError, msgspec.MsgspecError):
        return False


def _matches(path: Path, want: FileEntry, full: bool) -> bool:  # noqa: FBT001 - private
    stat = path.stat()
    if stat.st_size != want.size:
        return False
    # A file whose time changed (a restored backup, say) is not bad yet: read it.
    if full or stat.st_mtime_ns != want.mtime_ns:
        return _sha256(path) == want.sha256
    return True


@contextmanager
def _lock(path: Path, progress: Progress) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(ModelProgress("waiting for another process that makes this model", 0.0))
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
