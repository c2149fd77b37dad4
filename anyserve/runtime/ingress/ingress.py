"""`Ingress`: one origin, its front, and the doors that clients come in by.

The same in a process of its own and inside a replica's: there it is an origin all the same, with
its own connection and role, and offers what enters to its replica.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from anyserve.core.events import IngressOpened
from anyserve.core.spec import ClusterSpec, IngressSpec
from anyserve.runtime.bus.address import BrokerAddress, Credential
from anyserve.runtime.handlers.words import ObjectsConfig
from anyserve.runtime.ingress.directory import SCHEDULER
from anyserve.runtime.ingress.doors import make_doors
from anyserve.runtime.ingress.front import Door, Front
from anyserve.runtime.objects.plane import ObjectPlane
from anyserve.runtime.origin import OriginClient
from anyserve.telemetry.log import EventLogWriter

if TYPE_CHECKING:
    from anyserve.runtime.ingress.metrics import MetricsFeed

_LOG = logging.getLogger(__name__)
_FLUSH_S: Final = 0.5
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - to recognise it
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressOptions:
    """Everything one ingress is made of.

    `replica`: in whose process it runs, and where its requests enter; None: at the scheduler.
    `log_path`: where its origin writes its events; None: nowhere. A port None is closed, 0 free.
    `objects`: the object plane of its host, for payloads too large for a message.
    `observes`: it hears the whole cluster, with `observer`, and tells of it at `/metrics`; else
    only of itself.
    """

    cluster: ClusterSpec
    broker: BrokerAddress
    credential: Credential | None
    prefix: str
    name: str
    incarnation: int
    boot: str
    http_port: int | None
    grpc_port: int | None
    replica: str | None = None
    log_path: Path | None = None
    objects: ObjectsConfig | None = None
    observes: bool = False
    observer: Credential | None = None


class Ingress:
    """Open it, and close it in two steps: `drain`, then `close`.

    Args:
        options: what it is made of.
        environ: where API keys may stand.
    """

    def __init__(self, options: IngressOptions, environ: Mapping[str, str]) -> None:
        self._options = options
        self._environ = environ
        self._settings = options.cluster.ingress or IngressSpec()
        self._doors: list[Door] = []
        self._log: EventLogWriter | None = None
        self._flusher: asyncio.Task[None] | None = None
        self._front: Front | None = None
        self._objects_url = ""
        self._feed: MetricsFeed | None = None

    @property
    def front(self) -> Front:
        """What its doors share; known once opened."""
        assert self._front is not None
        return self._front

    async def open(self) -> IngressOpened:
        """Connect, open all doors, and say where they are.

        Raises:
            AnyServeError: no broker or scheduler, a port that is taken, keys or a certificate that
                cannot be read.
        """
        options = self._options
        if options.log_path is not None:
            self._log = EventLogWriter(options.log_path)
            self._flusher = asyncio.create_task(self._keep_flushing(), name="flush-log")
        client = OriginClient(
            address=options.broker,
            credential=options.credential,
            prefix=options.prefix,
            name=options.name,
            cluster=options.cluster,
            incarnation=options.incarnation,
            boot=options.boot,
            tee=None if self._log is None else self._log.write,
        )
        self._front = Front(options.cluster, client, entry=options.replica or SCHEDULER)
        if options.objects is not None:
            self._front.objects = ObjectPlane.of(options.objects)
        doors = make_doors(
            self._front, self._environ, http_port=options.http_port, grpc_port=options.grpc_port
        )
        await self._front.start()
        await self._measure(self._front)
        opened: dict[str, str] = {}
        for kind, door in doors.items():
            opened[kind] = await door.start()
            self._doors.append(door)
        said = IngressOpened(**opened, replica=options.replica or "")
        client.emit(said)
        self._serve_objects(opened.get("http"))
        self._note_exposure(opened)
        return said

    def _serve_objects(self, url: str | None) -> None:
        """Let other hosts find this host's objects at this door."""
        if url is None or self._front is None or self._front.objects is None:
            return
        parts = urlsplit(url)
        if parts.hostname in _EVERYWHERE:
            url = f"{parts.scheme}://{socket.gethostname()}:{parts.port}"
        self._objects_url = url
        self._front.objects.store.announce(url)

    def _withdraw_objects(self) -> None:
        plane = None if self._front is None else self._front.objects
        if plane is not None and plane.store.url == self._objects_url:
            plane.store.announce("")  # unless another door of this host serves them by now

    async def drain(self) -> None:
        """Refuse new requests and wait for open ones, as long as the settings allow."""
        if self._front is not None and not await self._front.drain(self._settings.drain_ms / 1000):
            _LOG.warning("%d requests are cut off", self._front.open_requests)

    async def close(self) -> None:
        """Cancel what is open, tell its clients, and leave."""
        if self._front is not None:
            self._front.begin_drain()
            self._front.client.cancel_all()
            self._withdraw_objects()
        for door in self._doors:
            await door.close()
        if self._doors and self._front is not None:
            self._front.client.emit(IngressOpened(replica=self._options.replica or ""))
        if self._front is not None:
            await self._front.close()
        if self._feed is not None:
            await self._feed.close()
        if self._flusher is not None:
            self._flusher.cancel()
        if self._log is not None:
            self._log.close()

    async def _measure(self, front: Front) -> None:
        """Give the front something to say at `/metrics`."""
        options = self._options
        if options.http_port is None:
            return
        from anyserve.runtime.ingress.figures import ingress_families  # noqa: PLC0415 - prometheus
        from anyserve.runtime.ingress.metrics import MetricsFeed  # noqa: PLC0415
        from anyserve.telemetry.metrics.exposition import write_families  # noqa: PLC0415

        if not options.observes:
            front.exposition = lambda: write_families(ingress_families(front)).decode()
            return
        self._feed = MetricsFeed(
            front,
            address=options.broker,
            credential=options.observer,
            prefix=options.prefix,
            client_id=f"{options.name}-metrics-{options.incarnation}"[-64:],
        )
        await self._feed.start()
        front.exposition = self._feed.exposition

    def _note_exposure(self, opened: Mapping[str, str]) -> None:
        settings = self._settings
        _LOG.info("open: %s", ", ".join(opened.values()) or "no door")
        keys = settings.api_keys_env or settings.api_keys_file
        if opened and settings.host not in _LOCAL and not keys:
            _LOG.warning(
                "everybody who reaches %s may use this cluster: no API key is asked for",
                settings.host,
            )

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_S)
            if self._log is not None:
                self._log.flush()
