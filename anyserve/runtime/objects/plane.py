"""The object plane as handlers see it: this host's store, and copies from other hosts."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Self

from anyserve.app.context import Objects
from anyserve.core.objects import ObjRef
from anyserve.errors import ObjectError
from anyserve.runtime.handlers.words import ObjectsConfig, Payload
from anyserve.runtime.objects import values
from anyserve.runtime.objects.store import ObjectStore
from anyserve.runtime.objects.token import is_sealed

_QUICK_BYTES: Final = 64 << 10
"""Up to here a copy takes less time than handing it to a thread."""
FETCH_TIMEOUT_S: Final = 30.0

Fetch = Callable[[ObjRef, str], bytes]


def fetch_copy(ref: ObjRef, token: str) -> bytes:
    """Get an object's bytes from the host that has it. Blocks.

    Raises:
        ObjectError: that host does not answer, or has it no longer.
    """
    url = f"{ref.url.rstrip('/')}/objects/{ref.id}"
    if not ref.url.startswith(("http://", "https://")):
        hint = "turn the HTTP ingress of that host on, or put the handlers on one host"
        raise _unreachable(ref, "that host serves no copies", hint)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    wanted = urllib.request.Request(url, headers=headers)  # noqa: S310 - http and https only
    try:
        with urllib.request.urlopen(wanted, timeout=FETCH_TIMEOUT_S) as answer:  # noqa: S310
            data: bytes = answer.read(ref.size + 1)
            return data
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.NOT_FOUND:
            raise ObjectError(f"the object {ref.id} is gone", code="object_gone") from None
        raise _unreachable(ref, f"{url} answered {error.code}") from None
    except OSError as error:
        raise _unreachable(ref, f"{url}: {error}") from None


class ObjectPlane(Objects):
    """Puts into this host's store; gets from it, or through a copy that is kept in it."""

    def __init__(self, store: ObjectStore, token: str = "", fetch: Fetch = fetch_copy) -> None:
        self.store = store
        self.token = token
        self._fetch = fetch

    @classmethod
    def of(cls, config: ObjectsConfig) -> Self:
        """The plane of this host, as a process is told of it.

        Raises:
            ObjectError: its directory cannot be used.
        """
        store = ObjectStore(
            Path(config.directory), config.rules, url=config.url, token=config.token
        )
        return cls(store, config.token)

    async def put(
        self, value: Any, *, content_type: str | None = None, ttl_s: float | None = None
    ) -> ObjRef:
        """See `Objects`."""
        ttl_ms = None if ttl_s is None else round(ttl_s * 1000)
        size = getattr(value, "nbytes", None)
        if size is None:
            size = len(value) if isinstance(value, (bytes, bytearray, str)) else 0
        put = partial(self.store.put, value, content_type=content_type, ttl_ms=ttl_ms)
        return put() if size <= _QUICK_BYTES else await asyncio.to_thread(put)

    async def get(self, ref: ObjRef, *, verify: bool = False) -> Any:
        """See `Objects`."""
        if not self.store.has(ref) and ref.home != self.store.home:
            await asyncio.to_thread(self._bring, ref)
        if verify and ref.size > _QUICK_BYTES:
            return await asyncio.to_thread(partial(self.store.get, ref, verify=True))
        return self.store.get(ref, verify=verify)

    async def lookup(self, object_id: str) -> ObjRef | None:
        """See `Objects`."""
        return self.store.lookup(object_id)

    def _bring(self, ref: ObjRef) -> None:
        # A client may have written this reference: it must not tell us whom to show the token.
        if not is_sealed(ref, self.token):
            raise _unreachable(ref, "the reference was not made by this cluster")
        self.store.keep_copy(ref, self._fetch(ref, self.token))

    # --- payloads that are too large for a message ---------------------------------------------

    async def shrink(self, payload: Payload) -> Payload:
        """A payload above the threshold, as a reference.

        Raises:
            ObjectError: there is no room for it.
        """
        if payload.ref is not None or len(payload.json) <= self.store.rules.threshold_bytes:
            return payload
        return Payload(ref=await self.put(payload.json, content_type=values.JSON))

    async def expand(self, payload: Payload) -> bytes | memoryview:
        """The JSON of a payload, wherever it is.

        Raises:
            ObjectError: it is gone, or out of reach.
        """
        if payload.ref is None:
            return payload.json
        ref = payload.ref
        if not self.store.has(ref) and ref.home != self.store.home:
            await asyncio.to_thread(self._bring, ref)
        return self.store.view(ref)


def _unreachable(ref: ObjRef, why: str, hint: str = "") -> ObjectError:
    message = f"the object {ref.id} is on another host ({ref.home}) and out of reach: {why}"
    return ObjectError(message, code="object_unreachable", hint=hint)
