"""Where a broker is and who we are there. Passwords never show in a repr, a URL or an error."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qs, unquote, urlsplit

from anyserve.errors import UsageError

_PORTS = {"mqtt": 1883, "mqtts": 8883}


class Role(StrEnum):
    """What a connection may do; each role has its own credential and ACL."""

    SCHEDULER = "scheduler"
    REPLICA = "replica"
    ORIGIN = "origin"
    OBSERVER = "observer"


@dataclass(frozen=True, slots=True)
class Credential:
    """User and password of one role."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Host and port of a broker, with TLS or without; `ca_file` replaces the system's CAs."""

    host: str
    port: int
    tls: bool = False
    ca_file: str | None = None

    @property
    def url(self) -> str:
        """The URL without user and password: safe to print, log and store."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"

    def ssl_context(self) -> ssl.SSLContext | None:
        """A verifying TLS context, or None for plain TCP."""
        return ssl.create_default_context(cafile=self.ca_file) if self.tls else None


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of one cluster, by role. A role without one connects without a password."""

    by_role: Mapping[Role, Credential]

    @classmethod
    def generate(cls) -> Credentials:
        """Fresh random passwords for every role."""
        return cls({role: Credential(role.value, secrets.token_urlsafe(24)) for role in Role})

    @classmethod
    def shared(cls, credential: Credential | None) -> Credentials:
        """One credential for all roles (an external broker that was given a single login)."""
        return cls({} if credential is None else dict.fromkeys(Role, credential))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Mapping[str, str]]) -> Credentials:
        """Read back what `to_dict` wrote."""
        return cls({Role(r): Credential(c["user"], c["password"]) for r, c in stored.items()})

    def to_dict(self) -> dict[str, dict[str, str]]:
        """Plain text passwords, for the cluster's 0600 file only."""
        return {
            role.value: {"user": credential.user, "password": credential.password}
            for role, credential in self.by_role.items()
        }

    def of(self, role: Role) -> Credential | None:
        """The credential of a role, or None where the broker was given without one."""
        return self.by_role.get(role)


def parse_broker_url(url: str) -> tuple[BrokerAddress, Credential | None]:
    """Split `mqtt[s]://[user:password@]host[:port][?ca=FILE]`.

    Raises:
        UsageError: the URL cannot be read; the message never repeats the password.
    """
    parts = urlsplit(url)
    hint = "write it as mqtt://user:password@host:1883 or mqtts://user:password@host:8883"
    if parts.scheme not in _PORTS:
        scheme = parts.scheme or "nothing"
        message = f"a broker URL begins with mqtt:// or mqtts://, not with {scheme}"
        raise UsageError(message, code="broker_url", hint=hint)
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError:
        message = "the port of the broker URL is not a number from 1 to 65535"
        raise UsageError(message, code="broker_url", hint=hint) from None
    if not parts.hostname:
        raise UsageError("the broker URL names no host", code="broker_url", hint=hint)
    if parts.path not in {"", "/"}:
        raise UsageError("a broker URL has no path", code="broker_url", hint=hint)
    ca_file = parse_qs(parts.query).get("ca", [None])[0]
    address = BrokerAddress(parts.hostname, port, tls=parts.scheme == "mqtts", ca_file=ca_file)
    if parts.username is None:
        return address, None
    return address, Credential(unquote(parts.username), unquote(parts.password or ""))
