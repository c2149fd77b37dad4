"""`anyserve tui --web`: the screens in a browser on this machine, each visitor with one of its own.

Loopback only, and read-only: who can reach the port can type. A page of another site that a browser
has open could reach it, too, so requests must come for this address and from no other site.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from anyserve.cli.session import Session
from anyserve.errors import MissingDependencyError, StartError

if TYPE_CHECKING:
    from aiohttp import web

HOST: Final = "127.0.0.1"
PORT: Final = 8000
Handler = Callable[["web.Request"], Awaitable["web.StreamResponse"]]


def serve_web(session: Session, words: Sequence[str], port: int) -> int:
    """Serve `anyserve tui` with these arguments until Ctrl-C.

    Raises:
        MissingDependencyError: the extra `web` is not installed.
        StartError: the port is taken.
    """
    try:
        from textual_serve.server import Server  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingDependencyError(
            "the browser needs textual-serve, which is not installed",
            code="no_web",
            hint="pip install 'anyserve[web]'",
        ) from None

    class LocalServer(Server):
        """Takes nothing from other sites, and says where it is on standard error."""

        async def _make_app(self) -> web.Application:
            app = await super()._make_app()
            app.middlewares.append(guard(port))
            return app

        async def on_startup(self, app: web.Application) -> None:
            del app
            session.diagnostics.say(f"http://{HOST}:{port}  (Ctrl-C ends it)")

        def initialize_logging(self) -> None:
            """Ours is as it is."""

    command = shlex.join([sys.executable, "-m", "anyserve.cli", "tui", *words])
    try:
        LocalServer(command, host=HOST, port=port, title="anyserve").serve()
    except OSError as error:
        raise StartError(
            f"cannot listen at {HOST}:{port}: {error.strerror or error}",
            code="port_taken",
            hint="--port N chooses another one",
        ) from None
    return 0


def guard(port: int) -> Any:
    """A middleware that refuses what was not meant for us, or comes from another site's page."""
    from aiohttp import web  # noqa: PLC0415 - an extra

    @web.middleware
    async def local_only(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not is_local(request.headers.get("Host", ""), request.headers.get("Origin"), port):
            raise web.HTTPForbidden(text="this page is for this machine only")
        return await handler(request)

    return local_only


def is_local(host: str, origin: str | None, port: int) -> bool:
    """Whether a request is for this address, and its page, if it has one, is ours."""
    ours = {f"{name}:{port}" for name in (HOST, "localhost")}
    return host in ours and (origin is None or origin.removeprefix("http://") in ours)
