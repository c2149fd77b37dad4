"""How a process joins a cluster by its broker's URL, from this machine or another one.

Credentials come from a file or from the environment, never from the command line, where every
user of the machine could read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from anyserve.errors import UsageError
from anyserve.runtime.bus.address import (
    BrokerAddress,
    Credential,
    Credentials,
    Role,
    parse_broker_url,
)
from anyserve.runtime.clusters import ClusterRecord

URL_ENV: Final = "ANYSERVE_BROKER_URL"
USER_ENV: Final = "ANYSERVE_BROKER_USER"
PASSWORD_ENV: Final = "ANYSERVE_BROKER_PASSWORD"  # noqa: S105 - the variable's name
FILE_ENV: Final = "ANYSERVE_CREDENTIALS_FILE"
SECRET_ENV: Final = (URL_ENV, PASSWORD_ENV)
"""Variables that may hold a secret: not handed on to child processes."""


class JoinFile(msgspec.Struct, frozen=True, kw_only=True):
    """A credentials file: a cluster's own file is one too, for the fields have the same names."""

    name: str
    broker: BrokerAddress
    credentials: dict[str, Credential]


@dataclass(frozen=True, slots=True)
class Joining:
    """Where to connect, who we are there, and the cluster's name where a file told it."""

    broker: BrokerAddress
    credentials: Credentials
    cluster: str | None


def join_by(url: str | None, credentials_file: Path | None, environ: Mapping[str, str]) -> Joining:
    """Put together what flags, environment and file say; a flag wins over the environment.

    `url` and `credentials_file` are the flags. ANYSERVE_BROKER_USER and
    ANYSERVE_BROKER_PASSWORD win over what the file or the URL of the environment holds.

    Raises:
        UsageError: no broker is named, a password stands in the flag, or the file is unreadable.
    """
    file = _read_file(credentials_file or _path(environ.get(FILE_ENV)))
    if url is not None:
        broker, login = parse_broker_url(url)
        if login is not None and login.password:
            raise _password_on_command_line()
    elif URL_ENV in environ:
        broker, login = parse_broker_url(environ[URL_ENV])
    elif file is not None:
        broker, login = file.broker, None
    else:
        hint = f"give --broker, a credentials file, or set {URL_ENV}"
        raise UsageError("no broker is named", code="no_broker", hint=hint)
    credentials = _credentials(login, file, environ)
    return Joining(broker, credentials, None if file is None else file.name)


def join_file(record: ClusterRecord, roles: tuple[Role, ...], host: str | None = None) -> bytes:
    """A credentials file for another machine: these roles only, the broker under `host`."""
    broker = record.broker
    if host is not None:
        broker = BrokerAddress(host, broker.port, tls=broker.tls, ca_file=broker.ca_file)
    kept = {role.value: record.credentials[role.value] for role in roles}
    wanted = JoinFile(name=record.name, broker=broker, credentials=kept)
    return msgspec.json.format(msgspec.json.encode(wanted), indent=1) + b"\n"


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _read_file(path: Path | None) -> JoinFile | None:
    if path is None:
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=JoinFile)
    except OSError as error:
        message = f"cannot read the credentials file {path}: {error.strerror}"
        raise UsageError(message, code="credentials_file") from None
    except msgspec.MsgspecError:
        # The decoder's message could repeat a part of the file.
        message = f"{path} is not a credentials file"
        hint = "copy the cluster's file from anyserve/clusters in its owner's XDG_STATE_HOME"
        raise UsageError(message, code="credentials_file", hint=hint) from None


def _credentials(
    login: Credential | None, file: JoinFile | None, environ: Mapping[str, str]
) -> Credentials:
    if PASSWORD_ENV in environ:
        user = environ.get(USER_ENV, login.user if login is not None else "")
        return Credentials.shared(Credential(user, environ[PASSWORD_ENV]))
    if file is not None:
        return Credentials({Role(role): who for role, who in file.credentials.items()})
    return Credentials.shared(login)


def _password_on_command_line() -> UsageError:
    return UsageError(
        "a password stands in the broker's URL on the command line, where others can read it",
        code="password_on_command_line",
        hint=f"set {PASSWORD_ENV} or {URL_ENV}, or give a credentials file",
    )
