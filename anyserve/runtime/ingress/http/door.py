"""`HttpDoor`: listens, serves connections, and closes without cutting answers off."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from pathlib import Path
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from anyserve.core.spec import IngressSpec
from anyserve.errors import StartError
from anyserve.runtime.ingress.http.protocol import GuardedProtocol

_BACKLOG: Final = 1024


class HttpDoor:
    """Serves an ASGI `app` at `host:port` (0: a free port), over TLS where the settings say so."""

    def __init__(self, app: Any, settings: IngressSpec, port: int) -> None:
        self._settings = settings
        self._port = port
        self._config = Config(
            app,
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=max(1, settings.limits.idle_ms // 1000),
        )
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listen; returns the URL.

        Raises:
            StartError: the address is taken or not ours, or the certificate cannot be read.
        """
        # Its warnings are about what single clients send; errors are bugs and stay.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._config.load()
        tls = _tls_context(self._settings)
        host = self._settings.host
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._connect,
                host,
                self._port,
                ssl=tls,
                ssl_handshake_timeout=self._settings.limits.header_ms / 1000 if tls else None,
                backlog=_BACKLOG,
            )
        except OSError as error:
            message = f"cannot listen at {host}:{self._port}: {error.strerror or error}"
            hint = "take another port, or 0 for a free one"
            raise StartError(message, code="ingress_port", hint=hint) from None
        return _url(self._server.sockets[0], host, tls=tls is not None)

    async def close(self, grace_s: float = 1.0) -> None:
        """Stop listening, let answers that are under way end within `grace_s`, cut off the rest."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=grace_s)
        for connection in list(self._state.connections):
            if isinstance(connection, GuardedProtocol):
                connection.abort()
        self._server = None

    def _connect(self) -> GuardedProtocol:
        return GuardedProtocol(self._config, self._state, self._settings.limits)


def _tls_context(settings: IngressSpec) -> ssl.SSLContext | None:
    if settings.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate = Path(settings.tls_certificate).expanduser()
    key = None if settings.tls_key is None else Path(settings.tls_key).expanduser()
    try:
        # An encrypted key would otherwise ask for its password on the terminal.
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        message = f"cannot use the certificate {certificate}: {error.strerror or error}"
        hint = "a PEM file, with its unencrypted private key inside or in tls.key"
        raise StartError(message, code="ingress_tls", hint=hint) from None
    return context


def _no_password() -> str:
    return ""


def _url(listening: Any, host: str, *, tls: bool) -> str:
    port = listening.getsockname()[1]
    shown = f"[{host}]" if listening.family == socket.AF_INET6 else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"
