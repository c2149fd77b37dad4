"""`anyserve broker`: a cluster's broker alone."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import msgspec

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.session import Session
from anyserve.errors import StartError
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.embedded import EmbeddedBroker
from anyserve.runtime.bus.address import Credentials
from anyserve.runtime.join import JoinFile
from anyserve.runtime.process import write_private


def run_broker(session: Session, cluster: str, port: int, credentials: Path | None) -> int:
    """Run until Ctrl-C, or until the broker dies.

    Raises:
        AnyServeError: no broker is installed, or it does not start.
    """
    path = credentials or session.cwd / f"{cluster}.credentials.json"
    return asyncio.run(_serve(session, cluster, port, path))


async def _serve(session: Session, cluster: str, port: int, path: Path) -> int:
    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    for number, code in (
        (signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, ExitCode.TERMINATED),
    ):
        loop.add_signal_handler(number, _end, stop, code)
    async with EmbeddedBroker(AccessRules(cluster), port=port) as broker:
        _write_credentials(path, cluster, broker)
        try:
            _announce(session, broker, path)
            died = asyncio.ensure_future(broker.wait_exit())
            either: set[asyncio.Future[Any]] = {stop, died}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            died.cancel()
        finally:
            _remove(path)  # they are of no use without this broker
    if not stop.done():
        raise StartError("the broker ended", code="broker_gone")
    return stop.result()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _end(stop: asyncio.Future[int], code: int) -> None:
    if not stop.done():
        stop.set_result(code)


def _write_credentials(path: Path, cluster: str, broker: EmbeddedBroker) -> None:
    logins: Credentials = broker.credentials
    file = JoinFile(
        name=cluster,
        broker=broker.address,
        credentials={role.value: login for role, login in logins.by_role.items()},
    )
    try:
        write_private(path, msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n")
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        hint = "choose another place with --write-credentials FILE"
        raise StartError(message, code="credentials_file", hint=hint) from None


def _announce(session: Session, broker: EmbeddedBroker, path: Path) -> None:
    session.output.line(broker.address.url)
    say = session.diagnostics.say
    say(f"credentials: {path} (until this broker ends)")
    say(f"next: anyserve scheduler SCENARIO --credentials {path}")
