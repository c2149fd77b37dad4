"""The ingress of a cluster as a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from anyserve.core.spec import IngressSpec
from anyserve.runtime.ingress.ingress import Ingress, IngressOptions
from anyserve.runtime.process import NodeConfig, Stop, report_ready


async def serve(config: NodeConfig, stop: Stop) -> int:
    """Serve until asked to stop; then drain.

    Raises:
        AnyServeError: it cannot be opened.
    """
    settings = config.cluster.ingress or IngressSpec()
    supervised = config.log_path is not None
    options = IngressOptions(
        cluster=config.cluster,
        broker=config.broker,
        credential=config.credential,
        prefix=config.prefix,
        name=config.id,
        incarnation=config.incarnation,
        boot=config.boot_id,
        http_port=settings.http_port,
        grpc_port=settings.grpc_port,
        log_path=Path(config.run_dir) / f"origin-{config.id}.jsonl" if supervised else None,
        objects=config.objects,
        # Without an observer's login it may not listen, unless the broker asks nobody for one.
        observes=config.observer_credential is not None or config.credential is None,
        observer=config.observer_credential,
    )
    ingress = Ingress(options, os.environ)
    try:
        opened = await ingress.open()
        report_ready()
        if not supervised:
            _say(opened.http, opened.grpc)
        await stop.wait()
        await ingress.drain()
    finally:
        await ingress.close()
    return 0


def _say(*addresses: str) -> None:
    """Tell whoever started it by hand where it is: one address a line."""
    sys.stdout.write("".join(f"{address}\n" for address in addresses if address))
    sys.stdout.flush()
