"""The broker AnyServe brings along: a child process under a guard, gone when its parent is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from anyserve.errors import ProtocolError, StartError
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.config import (
    BrokerBinary,
    BrokerKind,
    BrokerPlan,
    TlsFiles,
    find_broker,
    write_config,
)
from anyserve.runtime.broker.guard import LOG_NAME
from anyserve.runtime.bus.address import BrokerAddress, Credentials, Role
from anyserve.runtime.bus.link import GmqttLink, LinkEvents, LinkOptions
from anyserve.runtime.lifeline import Lifeline

LOOPBACK: Final = "127.0.0.1"
_START_TIMEOUT_S: Final = 10.0
_PORT_TRIES: Final = 5
_POLL_S: Final = 0.02
_LOG_LINES: Final = 8


class EmbeddedBroker:
    """One broker, on the loopback interface unless told, with random credentials per role.

    `host` is an address of this machine, by which others reach it. `port` 0 takes a free one.
    `rules` are the access rules of the cluster; tests break them.
    """

    def __init__(
        self,
        rules: AccessRules,
        *,
        host: str = LOOPBACK,
        port: int = 0,
        tls: TlsFiles | None = None,
        kind: BrokerKind | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self._rules = rules
        self._host = host
        self._wanted_port = port
        self._tls = tls
        self._kind = kind
        self.credentials = credentials or Credentials.generate()
        self._lifeline: Lifeline | None = None
        self._guard: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._directory: Path | None = None
        self._address: BrokerAddress | None = None
        self._pid: int | None = None
        self._exit = asyncio.Event()
        self._failure = ""

    @property
    def address(self) -> BrokerAddress:
        """Where to connect; known once started."""
        if self._address is None:
            raise StartError("the broker was not started", code="broker_not_started")
        return self._address

    @property
    def rules(self) -> AccessRules:
        """The access rules it enforces."""
        return self._rules

    @property
    def pid(self) -> int | None:
        """Process id of the broker itself, None while it does not run."""
        return self._pid

    @property
    def directory(self) -> Path | None:
        """The private directory with configuration, log and store."""
        return self._directory

    async def start(self) -> None:
        """Start it and wait until it takes MQTT connections.

        Raises:
            MissingDependencyError: no broker is installed.
            StartError: it does not come up; carries its last log lines.
        """
        binary = find_broker(self._kind)
        tries = 1 if self._wanted_port else _PORT_TRIES
        for attempt in range(1, tries + 1):
            try:
                await self._start_on(binary, self._wanted_port or _free_port(self._host))
            except StartError:
                await self.close()
                if attempt == tries:  # else: somebody may have taken the port in between
                    raise
            except BaseException:
                await self.close()
                raise
            else:
                return

    async def kill(self) -> None:
        """`kill -9` the broker, as a fault; its port and store stay for `restart`."""
        if self._pid is not None:
            self._command(b"k")
            await self.wait_exit()

    def send_kill(self) -> None:
        """The same, without waiting for its end."""
        if self._pid is not None:
            self._command(b"k")

    async def restart(self) -> None:
        """Start it again after `kill` or a crash: same port, same store, same credentials.

        Raises:
            StartError: it does not come up; carries its last log lines.
        """
        self._exit.clear()
        self._command(b"s")
        await self._wait_ready()

    async def wait_exit(self) -> None:
        """Wait until the broker's process is gone, for whatever reason."""
        await self._exit.wait()

    async def close(self) -> None:
        """End it and remove its directory. Safe to call twice, and after a failed start."""
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None
        if self._guard is not None:
            await self._guard.wait()
            self._guard = None
        if self._reader is not None:
            await self._reader
            self._reader = None
        if self._directory is not None:
            # The guard has done it, unless the guard itself was killed.
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _start_on(self, binary: BrokerBinary, port: int) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="anyserve-broker-"))  # 0700
        ca = self._tls.ca if self._tls is not None else None
        self._address = BrokerAddress(
            self._host, port, tls=self._tls is not None, ca_file=str(ca) if ca else None
        )
        plan = BrokerPlan(
            self._directory, self._host, port, self._tls, self._rules, self.credentials
        )
        config = write_config(binary.kind, plan)
        self._exit.clear()
        self._failure = ""
        await self._start_guard(binary.command(config))
        self._command(b"s")
        await self._wait_ready()

    async def _start_guard(self, command: list[str]) -> None:
        self._lifeline = Lifeline()
        self._guard = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "anyserve.runtime.broker.guard",
            str(self._directory),
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=self._lifeline.pass_fds,
            env={**os.environ, **self._lifeline.env},
            # A Ctrl-C in the terminal is for the supervisor, which drains first.
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read_guard(self._guard), name="broker guard")

    def _command(self, command: bytes) -> None:
        if self._lifeline is None:
            raise StartError("the broker was not started", code="broker_not_started")
        with contextlib.suppress(BrokenPipeError):  # the guard died: `_exit` says so
            self._lifeline.send(command)

    async def _read_guard(self, guard: asyncio.subprocess.Process) -> None:
        assert guard.stdout is not None
        async for line in guard.stdout:
            word, _, rest = line.decode().strip().partition(" ")
            if word == "started":
                self._pid = int(rest)
            else:
                self._failure = rest
                self._pid = None
                self._exit.set()
        self._pid = None
        self._exit.set()

    async def _wait_ready(self) -> None:
        ended = asyncio.ensure_future(self._exit.wait())
        accepted = asyncio.ensure_future(self._wait_accepting())
        try:
            await asyncio.wait(
                {ended, accepted}, timeout=_START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
            )
            if self._exit.is_set():  # whoever answers then, it is not our broker
                raise self._start_error("ended at its start")
            if not accepted.done():
                raise self._start_error(f"takes no connection after {_START_TIMEOUT_S:.0f} s")
        finally:
            for task in (ended, accepted):
                task.cancel()
            await asyncio.gather(ended, accepted, return_exceptions=True)

    async def _wait_accepting(self) -> None:
        while not await self._accepts():  # noqa: ASYNC110 - a foreign process sends no event
            await asyncio.sleep(_POLL_S)

    async def _accepts(self) -> bool:
        options = LinkOptions(
            self.address, self.credentials.of(Role.OBSERVER), "anyserve-ready", None, 5
        )
        link = GmqttLink(options, LinkEvents(_ignore_message, _ignore_ack, _ignore_loss))
        try:
            await link.open(_START_TIMEOUT_S)
        except (OSError, TimeoutError, ProtocolError):
            return False
        await link.close()
        return True

    def _start_error(self, what: str) -> StartError:
        lines = [f"the broker at {self.address.url} {what}", *self._last_log_lines()]
        hint = "is the port taken by another program?" if self._wanted_port else ""
        return StartError("\n  ".join(lines), code="broker_start", hint=hint)

    def _last_log_lines(self) -> list[str]:
        assert self._directory is not None
        try:
            text = (self._directory / LOG_NAME).read_text(errors="replace")
        except OSError:
            return [self._failure] if self._failure else []
        return text.splitlines()[-_LOG_LINES:]


def _free_port(host: str) -> int:
    try:
        with socket.create_server((host, 0), family=_family(host)) as probe:
            port: int = probe.getsockname()[1]
            return port
    except OSError as error:
        raise StartError(
            f"{host} is not an address of this machine ({error.strerror or error})",
            code="broker_host",
            hint="name the address by which the other machines reach this one",
        ) from None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _ignore_message(_topic: str, _payload: bytes, _retain: bool) -> None:  # noqa: FBT001 - the signature of a bus callback
    """The readiness check subscribes to nothing."""


def _ignore_ack(_packet_id: int) -> None:
    """The readiness check publishes nothing."""


def _ignore_loss() -> None:
    """The readiness check looks at the outcome of `open` alone."""
