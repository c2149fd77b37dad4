"""The clusters that run on this machine, as files: `$XDG_STATE_HOME/anyserve/clusters/NAME.json`.

A file holds the credentials of its cluster and is readable by its owner alone. It counts as live
as long as its supervisor runs: the process with that pid *and* that start time, because pids are
used again. Files of clusters whose supervisor is gone are removed when they are met, together
with what the cluster left in its private directory.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import psutil

from anyserve.errors import StartError, UsageError
from anyserve.runtime.bus.address import BrokerAddress, Credential, Credentials, Role
from anyserve.runtime.objects.directory import remove_linked
from anyserve.runtime.process import write_private

RECORD_VERSION: Final = 1
_TEMP_PREFIX: Final = "anyserve-"
_SAME_START_S: Final = 0.05
"""psutil's start times of one process agree to a clock tick (10 ms)."""


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One process: the pid alone names nobody, pid and start time do. `started_s`: psutil's."""

    name: str
    pid: int
    started_s: float

    def runs(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_s) < _SAME_START_S
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


class ClusterRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a cluster's file says. `created_s` is wall clock."""

    name: str
    prefix: str
    broker: BrokerAddress
    credentials: dict[str, Credential]
    supervisor: ProcessRecord
    control: str
    temp_dir: str
    run_dir: str
    created_s: float
    scenario: str = ""
    objects: str = ""
    """The directory of this host's objects."""
    processes: list[ProcessRecord] = []
    version: int = RECORD_VERSION

    @property
    def live(self) -> bool:
        """Whether its supervisor runs."""
        return self.supervisor.runs()

    def role_credentials(self) -> Credentials:
        """The credentials by role."""
        return Credentials({Role(role): login for role, login in self.credentials.items()})


def process_record(name: str, pid: int) -> ProcessRecord | None:
    """The record of a running process; None where there is none."""
    try:
        return ProcessRecord(name=name, pid=pid, started_s=psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def state_dir(environ: Mapping[str, str]) -> Path:
    """Where the files lie; XDG_STATE_HOME counts only if it is absolute, as its rules say."""
    base = environ.get("XDG_STATE_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return root / "anyserve" / "clusters"


@dataclass(frozen=True, slots=True)
class ClusterStore:
    """The files of one user."""

    root: Path

    def path(self, name: str) -> Path:
        """The file of a cluster."""
        return self.root / f"{name}.json"

    def claim(self, record: ClusterRecord) -> None:
        """Write the file of a new cluster.

        Raises:
            StartError: a live cluster has this name already, or the file cannot be written.
        """
        self.refuse_live(record.name)
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._link(record)
        except FileExistsError:
            raise _name_taken(record.name) from None
        except OSError as error:
            message = f"cannot write {self.path(record.name)}: {error.strerror or error}"
            hint = "set XDG_STATE_HOME to a directory you can write"
            raise StartError(message, code="state_dir", hint=hint) from None

    def refuse_live(self, name: str) -> None:
        """Raise StartError where a live cluster has this name; clean up after a dead one."""
        record = self._read(self.path(name))
        if record is None:
            return
        if record.live:
            raise _name_taken(name)
        self.forget(record)

    def update(self, record: ClusterRecord) -> None:
        """Replace the file of our own cluster, all at once."""
        write_private(self.path(record.name), _encode(record))

    def release(self, record: ClusterRecord) -> None:
        """Remove the file, if it is still that of this very cluster."""
        found = self._read(self.path(record.name))
        if found is not None and found.supervisor == record.supervisor:
            self.path(record.name).unlink(missing_ok=True)

    def forget(self, record: ClusterRecord) -> None:
        """Remove what a dead cluster left: its file, and its private directory."""
        self.release(record)
        directory = Path(record.temp_dir)
        if not any(process.runs() for process in record.processes) and _is_ours(directory):
            remove_linked(directory)
            shutil.rmtree(directory, ignore_errors=True)

    def list(self) -> list[ClusterRecord]:
        """All live clusters, newest first; dead ones are removed on the way."""
        if not self.root.is_dir():
            return []
        live: list[ClusterRecord] = []
        for path in sorted(self.root.glob("*.json")):
            record = self._read(path)
            if record is None:
                continue
            if record.live:
                live.append(record)
            else:
                self.forget(record)
        return sorted(live, key=lambda record: record.created_s, reverse=True)

    def find(self, name: str | None) -> ClusterRecord:
        """The live cluster of this name; without a name the only or the newest one.

        Raises:
            UsageError: there is none.
        """
        live = self.list()
        if name is None and live:
            return live[0]
        for record in live:
            if record.name == name:
                return record
        raise _not_found(name, live)

    def _link(self, record: ClusterRecord) -> None:
        # A link, unlike a rename, fails where another claimed the name in the meantime.
        handle, part = tempfile.mkstemp(prefix=f".{record.name}.", dir=self.root)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_encode(record))
            self.path(record.name).hardlink_to(part)
        finally:
            Path(part).unlink(missing_ok=True)

    def _read(self, path: Path) -> ClusterRecord | None:
        """A file's record; None where there is none, or where it is none of ours to read."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=ClusterRecord)
        except (OSError, msgspec.MsgspecError):
            return None


def list_clusters(environ: Mapping[str, str] | None = None) -> list[ClusterRecord]:
    """All live clusters of this user, newest first."""
    return ClusterStore(state_dir(os.environ if environ is None else environ)).list()


def find_cluster(name: str | None, environ: Mapping[str, str] | None = None) -> ClusterRecord:
    """The live cluster of this name; without a name the only or the newest one.

    Raises:
        UsageError: there is none.
    """
    return ClusterStore(state_dir(os.environ if environ is None else environ)).find(name)


def _encode(record: ClusterRecord) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def _is_ours(directory: Path) -> bool:
    """Whether this may be removed: a private directory of ours, as we name them."""
    try:
        status = directory.lstat()
    except OSError:
        return False
    private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == stat.S_IRWXU
    return private and status.st_uid == os.getuid() and directory.name.startswith(_TEMP_PREFIX)


def _name_taken(name: str) -> StartError:
    return StartError(
        f"a cluster named {name} runs already",
        code="cluster_runs",
        hint=f"stop it with `anyserve down {name}`, or give this one another name",
    )


def _not_found(name: str | None, live: list[ClusterRecord]) -> UsageError:
    if not live:
        what = "no cluster runs here" if name is None else f"no cluster named {name} runs here"
        hint = "start one with `anyserve up SCENARIO`"
    else:
        what = f"no cluster named {name} runs here"
        hint = f"running: {', '.join(record.name for record in live)}"
    return UsageError(what, code="no_cluster", hint=hint)
