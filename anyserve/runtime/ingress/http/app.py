"""The ASGI app: finds the handler of a path, lets in who may come in, answers errors."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from anyserve.runtime.ingress import capabilities
from anyserve.runtime.ingress.front import Front
from anyserve.runtime.ingress.http import probes
from anyserve.runtime.ingress.http.exchange import ClientGoneError, Exchange, Receive, Send
from anyserve.runtime.ingress.http.keys import ApiKeys
from anyserve.runtime.ingress.meanings import RefusedError
from anyserve.runtime.ingress.openai import chat, completions, document, embeddings, models
from anyserve.runtime.objects.serve import ObjectServer

_LOG = logging.getLogger(__name__)
Handler = Callable[[Front, Exchange], Awaitable[None]]
OPEN: Final = frozenset({"/health", "/live", "/ready", "/openapi.json"})
"""Paths that ask for no key: probes cannot know one."""
OBJECTS: Final = "/objects/"
LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def handlers() -> Mapping[str, Mapping[str, Handler]]:
    """Every path, its methods, and what serves them."""
    return {
        "/v1/chat/completions": {"POST": chat.serve},
        "/v1/completions": {"POST": completions.serve},
        "/v1/embeddings": {"POST": embeddings.serve},
        "/v1/models": {"GET": models.serve_list},
        "/health": {"GET": probes.serve_health},
        "/live": {"GET": probes.serve_live},
        "/ready": {"GET": probes.serve_ready},
        "/metrics": {"GET": probes.serve_metrics},
        "/openapi.json": {"GET": document.serve},
    }


def _named(path: str) -> Mapping[str, Handler] | None:
    """Methods of the paths that end in a name."""
    if models.PATH.fullmatch(path) is not None:
        return {"GET": models.serve_one}
    if capabilities.PATH.fullmatch(path) is not None:
        return {"POST": capabilities.serve}
    return None


class _NotAllowedError(RefusedError):
    """A path that takes other methods only."""

    def __init__(self, path: str, method: str, allow: str) -> None:
        text = f"{path[:200]} takes {allow}, not {method[:20]}"
        super().__init__(text, code="method_not_allowed")
        self.allow = allow


def _object_server(front: Front) -> ObjectServer | None:
    """What gives other hosts copies of this host's objects.

    Without a token (the broker asks for no password) only where nobody else gets in.
    """
    plane = front.objects
    if plane is None or not (plane.token or front.settings.host in LOCAL):
        return None
    return ObjectServer(plane.store, plane.token)


class HttpApp:
    """One front behind HTTP."""

    def __init__(self, front: Front, keys: ApiKeys) -> None:
        self._front = front
        self._keys = keys
        self._handlers = handlers()
        self._objects = _object_server(front)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._objects is not None and scope["path"].startswith(OBJECTS):
            await self._objects(scope, receive, send)  # other hosts, by the cluster's own token
            return
        exchange = Exchange(scope, receive, send)
        try:
            handler = self._find(exchange)
            await handler(self._front, exchange)
        except RefusedError as refusal:
            self._front.note_refused(refusal)
            await self._refuse(exchange, refusal)
        except ClientGoneError:
            _LOG.debug("a client left before its request was whole")
        except Exception:  # noqa: BLE001 - the boundary of one request: logged, and answered
            _LOG.exception("a bug of ours: %.20r %.200r", exchange.method, exchange.path)
            bug = RefusedError("this is a bug of the server; its log says more", code="internal")
            await self._refuse(exchange, bug)
        finally:
            exchange.cancel_with_client()

    async def _refuse(self, exchange: Exchange, refusal: RefusedError) -> None:
        if exchange.started:
            exchange.abort()  # half an answer cannot become another one
        else:
            allow = refusal.allow if isinstance(refusal, _NotAllowedError) else ""
            await exchange.refuse(refusal, allow=allow)

    def _find(self, exchange: Exchange) -> Handler:
        path = exchange.path
        methods = self._handlers.get(path)
        if path not in OPEN:
            self._keys.check(exchange.header(b"authorization"), exchange.header(b"x-api-key"))
        if methods is None:
            methods = _named(path)
            if methods is None:
                raise RefusedError(f"there is no {path[:200]}", code="not_found")
        wanted = "GET" if exchange.method == "HEAD" else exchange.method
        handler = methods.get(wanted)
        if handler is None:
            raise _NotAllowedError(path, exchange.method, ", ".join(methods))
        return handler
