"""What all our processes have in common: their configuration, signals, logs, lifeline and exit.

A process is `python -m anyserve.runtime.<role> CONFIG`; CONFIG names a JSON file (0600) in the
cluster's own 0700 directory, so that no credential stands on a command line. Its module says
`sys.exit(run_node(main))`.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from anyserve.core.placement import Devices
from anyserve.core.spec import ClusterSpec
from anyserve.errors import AnyServeError, UsageError
from anyserve.runtime.bus.address import BrokerAddress, Credential, Role
from anyserve.runtime.handlers.words import ObjectsConfig
from anyserve.runtime.lifeline import ORPHANED_EXIT_CODE, watch_lifeline
from anyserve.runtime.logs import ErrorReport, Redactor, error_line, set_up_logging

_LOG = logging.getLogger(__name__)
READY_ENV: Final = "ANYSERVE_READY_FD"
_COLLECT_AFTER: Final = (20_000, 20, 20)
"""Objects, and collections of the younger generations, before a generation is searched."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TERMINATED: Final = 128 + signal.SIGTERM
_INTERNAL: Final = 70


class NodeRole(StrEnum):
    """Which of our processes this is; the value is also the name of its module in `runtime`."""

    SCHEDULER = "scheduler"
    REPLICA = "replica"
    PLAYER = "player"
    RECORDER = "recorder"
    INGRESS = "ingress"

    @property
    def bus_role(self) -> Role:
        """The role its main connection has: what it may publish and subscribe to."""
        return _BUS_ROLES[self]


_BUS_ROLES: Final = {
    NodeRole.SCHEDULER: Role.SCHEDULER,
    NodeRole.REPLICA: Role.REPLICA,
    NodeRole.PLAYER: Role.ORIGIN,
    NodeRole.RECORDER: Role.OBSERVER,
    NodeRole.INGRESS: Role.ORIGIN,
}


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything a process is told at its start.

    `incarnation` is the wall clock in milliseconds at this start, strictly greater than that of
    any earlier life of the same `id`. `credential` is that of `role.bus_role`. `prefix` is
    `anyserve/<cluster>`. `log_path` None means stderr (a process that somebody started by hand).
    `control_path`: where it listens for its supervisor (`node_control`); None: nowhere.
    `placed`: the supervisor has planned the GPUs, and `devices` are those of this replica (None:
    it needs none); otherwise it plans for itself. `origin_credential` lets a replica open a front
    door in its process, which is an origin; `observer_credential` lets an ingress hear the cluster
    for its metrics. `extra` holds what only one role reads.
    """

    role: NodeRole
    id: str
    cluster: ClusterSpec
    broker: BrokerAddress
    credential: Credential | None
    prefix: str
    run_dir: str
    incarnation: int
    boot_id: str
    log_path: str | None = None
    zygote_socket: str | None = None
    journal_path: str | None = None
    plan_path: str | None = None
    control_path: str | None = None
    placed: bool = False
    devices: Devices | None = None
    origin_credential: Credential | None = None
    """Of a replica whose handlers may call: they enter as an origin's requests."""
    objects: ObjectsConfig | None = None
    observer_credential: Credential | None = None
    extra: dict[str, Any] = {}

    @property
    def redactor(self) -> Redactor:
        """Hides this configuration's credentials."""
        logins = [self.credential, self.origin_credential, self.observer_credential]
        secrets = [login.password for login in logins if login is not None]
        if self.objects is not None and self.objects.token:
            secrets.append(self.objects.token)
        return Redactor(secrets)


class Stop:
    """The wish that this process ends, and why. Made by `run_node`; `main` waits for it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.reason = ""

    @property
    def requested(self) -> bool:
        """Whether the process was asked to end."""
        return self._event.is_set()

    def request(self, reason: str) -> None:
        """Ask for it; the first reason stays."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    async def wait(self) -> None:
        """Return once the process was asked to end."""
        await self._event.wait()


Main = Callable[[NodeConfig, Stop], Awaitable[int]]


def run_node(main: Main, *, argv: Sequence[str] | None = None, orphan_grace_s: float = 0.0) -> int:
    """Run `main` until it returns its exit code; returns the code the process must exit with.

    SIGTERM requests `Stop`, a second one ends the process at once; SIGINT is ignored, because
    Ctrl-C belongs to the foreground process. When the parent is gone the process has
    `orphan_grace_s` to end in order (0: none). SIGUSR1 writes all stacks to the log. An
    `AnyServeError` ends it with that error's exit code and one line of JSON on stderr.
    """
    faulthandler.enable()
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)
    redact = Redactor()
    try:
        config = load_config(_config_path(sys.argv[1:] if argv is None else argv))
        redact = config.redactor
        log_path = Path(config.log_path) if config.log_path is not None else None
        set_up_logging(log_path, redact, os.environ)
        _LOG.info("%s %s begins, pid %d", config.role, config.id, os.getpid())
        code = _run(main, config, orphan_grace_s)
    except Exception as error:  # noqa: BLE001 - the boundary of the process: logged and reported
        return _fail(error, redact)
    _LOG.info("%s %s ends with exit code %d", config.role, config.id, code)
    return code


def _fail(error: Exception, redact: Redactor) -> int:
    foreseen = find_foreseen(error)
    if foreseen is not None:
        _LOG.error("%s (%s)", foreseen.message, foreseen.code)
        report_error(redact.report(ErrorReport.of(foreseen)))
        return foreseen.exit_code
    _LOG.error("a bug of ours, or of something we use", exc_info=error)
    text = f"{type(error).__name__}: {error}"
    report_error(redact.report(ErrorReport(code="internal", message=text)))
    return _INTERNAL


def find_foreseen(error: BaseException) -> AnyServeError | None:
    """The error that was raised on purpose, also where task groups have wrapped it."""
    if isinstance(error, AnyServeError):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = (find_foreseen(inner) for inner in error.exceptions)
        return next((inner for inner in found if inner is not None), None)
    return None


def _config_path(argv: Sequence[str]) -> Path:
    if len(argv) != 1:
        raise UsageError("expected one argument, the configuration file", code="node_arguments")
    return Path(argv[0])


def load_config(path: Path) -> NodeConfig:
    """Read what `write_private` wrote.

    Raises:
        UsageError: there is no such file, or it is not a configuration.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=NodeConfig)
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise UsageError(message, code="node_config") from None
    except msgspec.MsgspecError as error:
        message = f"{path} is not a process configuration: {error}"
        raise UsageError(message, code="node_config") from None


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only we may read, all at once (the old one stays if it fails)."""
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made with 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _run(main: Main, config: NodeConfig, orphan_grace_s: float) -> int:
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(_supervised(main, config, orphan_grace_s))


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - there is none for Windows
    except ImportError:  # pragma: no cover - every other platform has it
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _collect_rarely() -> None:
    """Nearly all we make dies by its reference count: look for cycles seldom, and never again
    among what was imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def _supervised(main: Main, config: NodeConfig, orphan_grace_s: float) -> int:
    _collect_rarely()
    stop = Stop()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, _on_sigterm, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if orphan_grace_s > 0:
        watch_lifeline(lambda: _on_orphaned(loop, stop, orphan_grace_s))
    else:
        watch_lifeline()
    return await main(config, stop)


def _on_sigterm(stop: Stop) -> None:
    if stop.requested:
        _LOG.warning("asked to end a second time: leaving at once")
        logging.shutdown()
        os._exit(_TERMINATED)
    stop.request("SIGTERM")


def _on_orphaned(loop: asyncio.AbstractEventLoop, stop: Stop, grace_s: float) -> None:
    """In the lifeline's thread: ask the loop, but do not rely on it."""
    deadline = threading.Timer(grace_s, os._exit, (ORPHANED_EXIT_CODE,))
    deadline.daemon = True
    deadline.start()
    loop.call_soon_threadsafe(stop.request, "the parent process is gone")


def report_ready() -> None:
    """Tell the supervisor that this process does its work now; does nothing without one.

    The supervisor waits for it from scheduler and recorder, for replicas it waits for their
    registration. Only the first call counts.
    """
    value = os.environ.pop(READY_ENV, None)
    if value is None:
        return
    fd = int(value)
    try:
        os.write(fd, b"ready\n")
    except OSError as error:
        _LOG.debug("nobody waits for our readiness: %s", error)
    os.close(fd)


def report_error(report: ErrorReport) -> None:
    """Say on stderr, as one line of JSON, why this process fails."""
    sys.stderr.flush()
    try:
        os.write(2, error_line(report))
    except OSError:  # nobody listens; the exit code says the rest
        _LOG.debug("stderr is closed")


def boot_id() -> str:
    """The same for all processes of one boot of one host: their monotonic clocks compare."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        # Where the system has no such id: the host and the second of its boot.
        booted_at_s = round(time.time() - time.monotonic())
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{uuid.getnode()}-{booted_at_s}"))


class Incarnations:
    """Gives each process start a number greater than all its id had before."""

    def __init__(
        self, wall_clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self._clock = wall_clock_ms
        self._last: dict[str, int] = {}

    def next(self, process_id: str) -> int:
        """The incarnation of a start that happens now."""
        number = max(self._clock(), self._last.get(process_id, 0) + 1)
        self._last[process_id] = number
        return number
