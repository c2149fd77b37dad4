"""How an object lies in its file, and what its file is called.

`<id>.<created_ms>.<expires_ms>`: one page that begins with a JSON header, then the bytes. The name
is the index: what to evict is known without opening anything. A file that is being written is
called `part.<id>.<nonce>`, and its writer holds a lock on it; one without a lock was left by a
crash.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from anyserve.core.objects import OBJECT_ID, Entry, ObjRef
from anyserve.errors import ObjectError

HEADER_BYTES: Final = 4096
"""A page, so that what follows can be mapped by itself and arrays are aligned."""
PART: Final = "part."
LOCK: Final = "lock"
URL: Final = "url"
"""Holds where other hosts get copies of this host's objects, while an ingress serves them."""
_NAME: Final = re.compile(rf"({OBJECT_ID})\.(\d{{1,16}})\.(\d{{1,16}})")
_ID: Final = re.compile(OBJECT_ID)


def is_object_id(text: str) -> bool:
    """Whether `text` may stand in a path."""
    return _ID.fullmatch(text) is not None


def file_name(ref: ObjRef) -> str:
    """What the file of an object is called.

    Raises:
        ObjectError: the reference is none of ours.
    """
    if not is_object_id(ref.id):
        raise ObjectError(f"{ref.id[:40]!r} is no object's id", code="object_gone")
    return f"{ref.id}.{ref.created_ms}.{ref.expires_ms}"


def entry_of(name: str, size: int) -> Entry | None:
    """What a file's name and size say; None where it is no object."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return Entry(found[1], size, int(found[2]), int(found[3]))


def entry_path(directory: Path, entry: Entry) -> Path:
    """Where an object lies."""
    return directory / f"{entry.id}.{entry.created_ms}.{entry.expires_ms}"


def pack_header(ref: ObjRef) -> bytes:
    """The first page.

    Raises:
        ObjectError: what describes the object is longer than a page (an absurd content type).
    """
    header = msgspec.json.encode(ref)
    if len(header) > HEADER_BYTES:
        raise ObjectError("the description of the object is too long", code="objects_full")
    return header.ljust(HEADER_BYTES)


def read_header(page: bytes | memoryview) -> ObjRef:
    """The reference that an object's first page holds.

    Raises:
        ObjectError: the page is damaged.
    """
    try:
        return msgspec.json.decode(bytes(page[:HEADER_BYTES]).rstrip(), type=ObjRef)
    except msgspec.MsgspecError:
        raise ObjectError("the object's header is damaged", code="object_damaged") from None
