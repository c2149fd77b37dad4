"""API keys: from the environment or a file, compared in constant time, never shown."""

from __future__ import annotations

import hashlib
import hmac
import logging
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from anyserve.core.spec import IngressSpec
from anyserve.errors import StartError
from anyserve.runtime.ingress.meanings import RefusedError

_LOG = logging.getLogger(__name__)


class ApiKeys:
    """The keys that open the door; without any it stands open."""

    def __init__(self, keys: Iterable[str]) -> None:
        # Digests have one length, so comparing them tells nothing of a key's own.
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    @property
    def required(self) -> bool:
        """Whether a key is asked for."""
        return bool(self._digests)

    def check(self, authorization: str | None, x_api_key: str | None = None) -> None:
        """Let in who has a key: `Authorization: Bearer KEY`, or `x-api-key: KEY`.

        Raises:
            RefusedError: no key, or none of ours.
        """
        if not self._digests:
            return
        given = x_api_key
        if given is None and authorization is not None:
            scheme, _, given = authorization.partition(" ")
            given = given.strip() if scheme.lower() == "bearer" else None
        if not given:
            text = "an API key is required: Authorization: Bearer KEY"
            raise RefusedError(text, code="missing_api_key")
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            raise RefusedError("this API key is not valid", code="invalid_api_key")


def load_keys(settings: IngressSpec, environ: Mapping[str, str]) -> ApiKeys:
    """The keys that the settings name.

    Raises:
        StartError: the variable or the file is not there, or holds no key: a door that was meant
            to be locked must not stand open.
    """
    keys: list[str] = []
    if settings.api_keys_env is not None:
        text = environ.get(settings.api_keys_env, "")
        keys += _keys_in(text.replace(",", "\n"), f"the variable {settings.api_keys_env}")
    if settings.api_keys_file is not None:
        path = Path(settings.api_keys_file).expanduser()
        keys += _keys_in(_read(path), str(path))
    return ApiKeys(keys)


def _read(path: Path) -> str:
    try:
        if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            _LOG.warning("other users of this machine may read the API keys in %s", path)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        message = f"cannot read the API keys in {path}: {reason}"
        raise StartError(message, code="api_keys") from None


def _keys_in(text: str, where: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        hint = "one key a line; or take the setting away"
        raise StartError(f"{where} holds no API key", code="api_keys", hint=hint)
    return keys
