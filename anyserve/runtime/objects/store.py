"""The objects of one host: files in shared memory that every process of the cluster may map.

No process owns the store. What is shared is the directory, and a lock on one file in it that is
held while space is counted and taken. A new object is written under another name and renamed, so it
is there whole or not at all. Whoever maps an object holds a shared lock on its file as long as the
mapping lives, which is how the others know that removing it would free nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from blake3 import blake3

from anyserve.core.objects import Entry, ObjRef, choose_victims
from anyserve.core.spec import ObjectsSpec
from anyserve.errors import ObjectError
from anyserve.runtime.objects import layout
from anyserve.runtime.objects.directory import PREFIX
from anyserve.runtime.objects.token import sealed
from anyserve.runtime.objects.values import Packed, pack, unpack

_CHUNK_BYTES: Final = 16 << 20
_THREADED_BYTES: Final = 1 << 20
"""From here on the digest is worked out beside the copy, by a thread of its own."""


class ObjectStore:
    """One process's view of its host's objects; any thread may use it.

    Raises:
        ObjectError: `directory` is not a private directory of this user.
    """

    def __init__(
        self,
        directory: Path,
        rules: ObjectsSpec | None = None,
        *,
        url: str = "",
        token: str = "",
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self.directory = directory
        self.rules = rules or ObjectsSpec()
        self._url = url
        self._token = token
        self.home = directory.name.removeprefix(PREFIX)
        """Names this store among those of other hosts."""
        self._now_ms = now_ms
        self._new_id = new_id
        _check_private(directory)

    @property
    def url(self) -> str:
        """Where other hosts get copies; "" while no ingress of this host serves them."""
        if self._url:
            return self._url
        try:
            return (self.directory / layout.URL).read_text()
        except OSError:
            return ""

    def announce(self, url: str) -> None:
        """Say that an ingress serves this host's objects now, or (with "") that it leaves."""
        with contextlib.suppress(FileNotFoundError):  # the cluster is already gone
            part = self.directory / f"{layout.URL}.{secrets.token_hex(4)}"
            part.write_text(url)
            part.rename(self.directory / layout.URL)

    # --- putting -------------------------------------------------------------------------------

    def put(
        self, value: Any, *, content_type: str | None = None, ttl_ms: int | None = None
    ) -> ObjRef:
        """Keep a value.

        Raises:
            ObjectError: `objects_full`: it does not fit.
            InvalidRequestError: the value cannot be kept.
        """
        packed = pack(value, content_type)
        now_ms = self._now_ms()
        wanted = ObjRef(
            id=self._new_id(),
            size=len(packed.data),
            digest="",
            content_type=packed.content_type,
            created_ms=now_ms,
            expires_ms=now_ms + (self.rules.ttl_ms if ttl_ms is None else max(0, ttl_ms)),
            home=self.home,
            url=self.url,
            dtype=packed.dtype,
            shape=packed.shape,
        )
        return self._write(wanted, packed)

    def keep_copy(self, ref: ObjRef, data: bytes | memoryview) -> None:
        """Keep what came from another host under its own id, after a look at its digest.

        Raises:
            ObjectError: it is not what the reference says, or it does not fit.
        """
        packed = Packed(memoryview(data), ref.content_type, ref.dtype, ref.shape)
        self._write(ref, packed, expected=ref.digest)

    def _write(self, wanted: ObjRef, packed: Packed, expected: str | None = None) -> ObjRef:
        fd, part = self._reserve(wanted.id, layout.HEADER_BYTES + wanted.size)
        try:
            digest = _copy(fd, packed.data)
            if expected is not None and digest != expected:
                raise _damaged(wanted)  # noqa: TRY301 - the part has to go
            ref = sealed(msgspec.structs.replace(wanted, digest=digest), self._token)
            if expected is not None:
                ref = wanted  # a copy is what its maker has sealed
            os.pwrite(fd, layout.pack_header(ref), 0)
            with self._locked():  # whoever counts must not find it under neither name
                part.rename(self.directory / layout.file_name(ref))
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        return ref

    def _reserve(self, object_id: str, size: int) -> tuple[int, Path]:
        """Take `size` bytes; the open file, still under another name and locked by us."""
        # Two may bring the same copy at once: each writes its own, the last one's stays.
        part = self.directory / f"{layout.PART}{object_id}.{secrets.token_hex(4)}"
        with self._locked():
            self._make_room(size)
            fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                os.posix_fallocate(fd, 0, size)  # later, a full disk would end us by a signal
            except OSError as error:
                os.close(fd)
                part.unlink(missing_ok=True)
                if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                    raise _full(size, f"{self.directory.parent} has no more room") from None
                raise
        return fd, part

    def _make_room(self, need: int) -> None:
        while True:
            entries, reserved = self._scan()
            victims, fits = choose_victims(
                entries,
                limit=self.rules.limit_bytes - reserved,
                need=need,
                now_ms=self._now_ms(),
                pinned=self._is_pinned,
            )
            # Somebody may have mapped one since: then others have to go.
            kept = [entry for entry in victims if not self._remove(entry)]
            if not fits:
                raise _full(need, f"the limit of this host is {self.rules.limit_bytes} bytes")
            if not kept:
                return

    def _scan(self) -> tuple[list[Entry], int]:
        """All objects, and the bytes that others are just writing. Removes what crashes left."""
        entries: list[Entry] = []
        reserved = 0
        with os.scandir(self.directory) as found:
            for item in found:
                with contextlib.suppress(FileNotFoundError):
                    size = item.stat().st_size
                    entry = layout.entry_of(item.name, size)
                    if entry is not None:
                        entries.append(entry)
                    elif item.name.startswith(layout.PART):
                        reserved += self._size_or_remove(Path(item.path), size)
        return entries, reserved

    def _size_or_remove(self, part: Path, size: int) -> int:
        if self._is_locked(part):
            return size
        part.unlink(missing_ok=True)
        return 0

    # --- getting -------------------------------------------------------------------------------

    def get(self, ref: ObjRef, *, verify: bool = False) -> Any:
        """The value of an object of this host; bytes and arrays are read-only views of it.

        Raises:
            ObjectError: it is gone or damaged.
        """
        return unpack(ref, self.view(ref, verify=verify))

    def view(self, ref: ObjRef, *, verify: bool = False) -> memoryview:
        """Its bytes, mapped: nothing is copied. The mapping lives as long as the view is used.

        Raises:
            ObjectError: it is gone or damaged.
        """
        mapped = self._map(ref)
        found = layout.read_header(memoryview(mapped))
        data = memoryview(mapped)[layout.HEADER_BYTES :]
        same = (found.id, found.size, found.digest) == (ref.id, ref.size, ref.digest)
        if not same or len(data) != ref.size:
            raise _damaged(ref)
        if verify and _digest(data) != ref.digest:
            raise _damaged(ref)
        return data

    def has(self, ref: ObjRef) -> bool:
        """Whether this host has it now."""
        expired = ref.expires_ms <= self._now_ms()
        return not expired and (self.directory / layout.file_name(ref)).exists()

    def lookup(self, object_id: str) -> ObjRef | None:
        """The reference of an object of this host; None where there is none (any more)."""
        if not layout.is_object_id(object_id):
            return None
        for path in self.directory.glob(f"{object_id}.*"):
            entry = layout.entry_of(path.name, 0)
            if entry is None or entry.expires_ms <= self._now_ms():
                continue
            with contextlib.suppress(OSError), path.open("rb") as file:
                return layout.read_header(file.read(layout.HEADER_BYTES))
        return None

    def used_bytes(self) -> int:
        """What all objects take, those that are being written with them."""
        with self._locked():
            entries, reserved = self._scan()
        return reserved + sum(entry.size for entry in entries)

    def _map(self, ref: ObjRef) -> mmap.mmap:
        if ref.expires_ms <= self._now_ms():
            raise _gone(ref)
        while True:
            try:
                fd = os.open(self.directory / layout.file_name(ref), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise _gone(ref) from None
            try:
                # The mapping has its own descriptor of this very opening: the lock lives as long.
                fcntl.flock(fd, fcntl.LOCK_SH)
                if os.fstat(fd).st_nlink:  # else it went while we waited for the lock: look again
                    return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
            finally:
                os.close(fd)

    # --- locks ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            fd = os.open(self.directory / layout.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            message = "the object plane of this host is gone: its cluster has ended"
            raise ObjectError(message, code="objects_full") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _remove(self, entry: Entry) -> bool:
        """Remove an object, unless somebody has mapped it."""
        path = layout.entry_path(self.directory, entry)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    def _is_pinned(self, entry: Entry) -> bool:
        return self._is_locked(layout.entry_path(self.directory, entry))

    @staticmethod
    def _is_locked(path: Path) -> bool:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(fd)


def _copy(fd: int, data: memoryview) -> str:
    """Write the bytes behind the header; their digest."""
    if len(data) < _THREADED_BYTES:
        _write_all(fd, data)
        return _digest(data)
    digests: list[str] = []
    thread = threading.Thread(target=lambda: digests.append(_digest(data)), name="digest")
    thread.start()
    try:
        _write_all(fd, data)
    finally:
        thread.join()
    return digests[0]


def _write_all(fd: int, data: memoryview) -> None:
    done = 0
    while done < len(data):
        chunk = data[done : done + _CHUNK_BYTES]
        done += os.pwrite(fd, chunk, layout.HEADER_BYTES + done)


def _digest(data: memoryview) -> str:
    return blake3(data).hexdigest()


def _check_private(directory: Path) -> None:
    try:
        status = directory.lstat()
    except OSError as error:
        message = f"the object plane's directory {directory} cannot be used: {error.strerror}"
        raise ObjectError(message, code="objects_full") from None
    private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == stat.S_IRWXU
    if not private or status.st_uid != os.getuid():
        message = f"{directory} is not a private directory of this user"
        raise ObjectError(message, code="objects_full")


def _gone(ref: ObjRef) -> ObjectError:
    return ObjectError(
        f"the object {ref.id} is gone: it has expired, or made room for newer ones",
        code="object_gone",
        hint="a longer ttl_s at put, or a higher cluster.objects.limit, keeps objects longer",
    )


def _damaged(ref: ObjRef) -> ObjectError:
    return ObjectError(f"the object {ref.id} is not what its reference says", code="object_damaged")


def _full(size: int, why: str) -> ObjectError:
    return ObjectError(
        f"no room for an object of {size} bytes: {why}",
        code="objects_full",
        hint="what is mapped or being written cannot make room; raise cluster.objects.limit",
    )
