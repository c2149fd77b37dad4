"""The children of one supervisor, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping

from anyserve.runtime.clusters import ProcessRecord
from anyserve.runtime.supervisor.children import Child, ChildSpec, OnExit


class Roster(Mapping[str, Child]):
    """Starts and stops children together. `on_change` is called when a process has started."""

    def __init__(self, on_exit: OnExit, on_change: Callable[[], None]) -> None:
        self._children: dict[str, Child] = {}
        self._on_exit = on_exit
        self._on_change = on_change

    def __getitem__(self, name: str) -> Child:
        return self._children[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._children)

    def __len__(self) -> int:
        return len(self._children)

    @property
    def processes(self) -> list[ProcessRecord]:
        """Those that run now."""
        return [
            ProcessRecord(name=child.name, pid=child.pid, started_s=child.created_s)
            for child in self._children.values()
            if child.pid is not None and child.created_s is not None
        ]

    async def start(self, spec: ChildSpec) -> Child:
        """Start a child of this name.

        Raises:
            StartError: its command cannot be executed.
        """
        child = Child(spec, self._on_exit, on_start=self._on_change)
        self._children[spec.name] = child
        await child.start()
        return child

    async def stop(self, names: Iterable[str]) -> None:
        """Stop those of these names that there are, side by side; returns when all are gone."""
        present = [self._children[name] for name in names if name in self._children]
        await asyncio.gather(*(child.stop() for child in present))

    def kill(self) -> None:
        """End all of them now, for good."""
        for child in self._children.values():
            child.kill()
