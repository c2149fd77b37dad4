"""A cluster's private directory (0700): configurations, sockets, the broker's store.

Something that outlives the supervisor must remove it: the guard of the embedded broker, or, where
the broker is somebody else's, a guard that guards nothing but the directory.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from anyserve.runtime.broker.embedded import EmbeddedBroker
from anyserve.runtime.lifeline import Lifeline
from anyserve.runtime.objects.directory import linked_object_directory, remove_linked

_NEVER_RUN: Final = "true"


class GuardedDirectory:
    """A directory that is gone when we are, even after `kill -9`."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="anyserve-"))
        self._lifeline = Lifeline()
        self._guard: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Put it under guard."""
        self._guard = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "anyserve.runtime.broker.guard",
            str(self.path),
            _NEVER_RUN,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            pass_fds=self._lifeline.pass_fds,
            env={**os.environ, **self._lifeline.env},
            start_new_session=True,
        )

    async def close(self) -> None:
        """Remove it."""
        self._lifeline.close()
        if self._guard is not None:
            await self._guard.wait()
        remove_linked(self.path)
        shutil.rmtree(self.path, ignore_errors=True)


class Home:
    """Where the files of one cluster lie: the private ones, and the run's."""

    def __init__(self, private: Path, run_dir: Path) -> None:
        self.private = private
        self.run_dir = run_dir
        self.nodes = private / "nodes"
        self.scratch = private / "tmp"
        """Workers' temporary files: vLLM leaves some behind, above all where it is killed."""
        self.zygote_socket = private / "zygote"
        self.control_socket = private / "control"
        self.journal = run_dir / "scheduler.journal"
        self.objects: Path | None = None
        """The objects of this host, once `open_objects` has made their directory."""
        self.nodes.mkdir(mode=0o700, exist_ok=True)
        self.scratch.mkdir(mode=0o700, exist_ok=True)

    def open_objects(self) -> None:
        """Make the directory of this host's objects; it goes with the private one."""
        self.objects = linked_object_directory(self.private)

    def log(self, name: str) -> Path:
        """The log of a process."""
        return self.run_dir / "logs" / f"{name.replace(' ', '-')}.log"

    def node_socket(self, name: str) -> Path:
        """Where a process listens for its supervisor."""
        return self.nodes / name.replace(" ", "-")

    def config(self, name: str) -> Path:
        """The configuration of a process."""
        return self.nodes / f"{name.replace(' ', '-')}.json"


def home_of(broker: EmbeddedBroker, run_dir: Path) -> Home:
    """The home within a broker's own directory, which its guard removes."""
    assert broker.directory is not None
    return Home(broker.directory, run_dir)
