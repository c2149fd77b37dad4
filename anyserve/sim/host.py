"""Engines that share the cores of one machine slow each other down."""

from __future__ import annotations

from typing import Protocol


class Tenant(Protocol):
    """An engine on the host."""

    def share(self, busy: int, cores: int) -> None:
        """From the next step on, `busy` engines, itself included, share the cores."""
        ...


class Host:
    """A machine, and the engines on it that compute at the moment."""

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._busy: dict[Tenant, None] = {}

    def enter(self, tenant: Tenant) -> None:
        """An engine begins to compute."""
        if tenant not in self._busy:
            self._busy[tenant] = None
            self._tell()

    def leave(self, tenant: Tenant) -> None:
        """It has nothing to compute any more, or is gone."""
        if tenant in self._busy:
            del self._busy[tenant]
            self._tell()

    def _tell(self) -> None:
        for tenant in self._busy:
            tenant.share(len(self._busy), self._cores)
