"""`anyserve broker`: a cluster's broker alone."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.session import Session
from anyserve.errors import StartError, UsageError
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.config import TlsFiles
from anyserve.runtime.broker.embedded import EmbeddedBroker
from anyserve.runtime.bus.address import Credentials
from anyserve.runtime.join import JoinFile
from anyserve.runtime.process import write_private

_ANY: Final = ("0.0.0.0", "::", "*")  # noqa: S104 - refused


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """What the command line says."""

    cluster: str
    host: str
    port: int
    credentials: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    tls_ca: Path | None


def run_broker(session: Session, options: BrokerOptions) -> int:
    """Run until Ctrl-C, or until the broker dies.

    Raises:
        AnyServeError: no broker is installed, it does not start, or the options do not fit.
    """
    if options.host in _ANY:
        raise UsageError(
            f"{options.host} is no address that others can connect to",
            code="broker_host",
            hint="name the one address by which they reach this machine",
        )
    broker = EmbeddedBroker(
        AccessRules(options.cluster), host=options.host, port=options.port, tls=_tls(options)
    )
    path = options.credentials or session.cwd / f"{options.cluster}.credentials.json"
    if not _is_loopback(options.host) and options.tls_cert is None:
        session.diagnostics.warn(
            "without TLS everybody on the way can read passwords and prompts; "
            "see --tls-cert and --tls-key"
        )
    return asyncio.run(_serve(session, options.cluster, broker, path))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(options: BrokerOptions) -> TlsFiles | None:
    certificate, key = options.tls_cert, options.tls_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError("--tls-cert and --tls-key go together", code="tls_files")
    named = [certificate, key, *([options.tls_ca] if options.tls_ca else [])]
    for path in named:
        if not path.is_file():
            raise UsageError(f"there is no file {path}", code="tls_files")
    ca = options.tls_ca.absolute() if options.tls_ca else None
    return TlsFiles(certificate.absolute(), key.absolute(), ca)


async def _serve(session: Session, cluster: str, broker: EmbeddedBroker, path: Path) -> int:
    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    for number, code in (
        (signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, ExitCode.TERMINATED),
    ):
        loop.add_signal_handler(number, _end, stop, code)
    async with broker:
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
