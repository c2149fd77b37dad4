"""What a process shows to get a copy of an object from another host of its cluster."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from anyserve.runtime.bus.address import Credential

_PURPOSE: Final = b"anyserve objects"


def object_token(credential: Credential | None) -> str:
    """What object servers of a cluster want to see; "" where its broker needs no password.

    `credential` is that of the origin role: replicas, ingresses and clients have it.
    """
    if credential is None or not credential.password:
        return ""
    return hmac.new(credential.password.encode(), _PURPOSE, hashlib.sha256).hexdigest()
