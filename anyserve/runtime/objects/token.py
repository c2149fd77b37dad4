"""What a process shows to get a copy from another host, and how it knows whom it may ask."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import msgspec

from anyserve.core.objects import ObjRef
from anyserve.runtime.bus.address import Credential

_PURPOSE: Final = b"anyserve objects"


def object_token(credential: Credential | None) -> str:
    """What object servers of a cluster want to see; "" where its broker needs no password.

    `credential` is that of the origin role: replicas, ingresses and clients have it.
    """
    if credential is None or not credential.password:
        return ""
    return hmac.new(credential.password.encode(), _PURPOSE, hashlib.sha256).hexdigest()


def sealed(ref: ObjRef, token: str) -> ObjRef:
    """The reference with a seal over all it says; without one where the cluster has no token."""
    bare = msgspec.structs.replace(ref, seal="")
    if not token:
        return bare
    said = msgspec.json.encode(bare)
    return msgspec.structs.replace(
        bare, seal=hmac.new(token.encode(), said, hashlib.sha256).hexdigest()[:32]
    )


def is_sealed(ref: ObjRef, token: str) -> bool:
    """Whether a process of this cluster made the reference. Nobody can tell without a token."""
    return bool(token) and hmac.compare_digest(ref.seal, sealed(ref, token).seal)
