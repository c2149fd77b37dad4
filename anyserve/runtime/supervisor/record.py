"""Keeps the cluster's file on disk true while the cluster runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

import msgspec

from anyserve.errors import StartError
from anyserve.runtime.clusters import ClusterRecord, ClusterStore, ProcessRecord, process_record
from anyserve.runtime.supervisor.brokers import ClusterBroker
from anyserve.runtime.supervisor.config import SupervisorConfig
from anyserve.runtime.supervisor.home import Home

_LOG = logging.getLogger(__name__)


class RecordKeeper:
    """The file of one cluster, from `claim` to `release`."""

    def __init__(self, store: ClusterStore) -> None:
        self._store = store
        self._record: ClusterRecord | None = None

    def refuse_live(self, name: str) -> None:
        """Raise StartError where a live cluster has this name already."""
        self._store.refuse_live(name)

    def claim(
        self, config: SupervisorConfig, broker: ClusterBroker, home: Home, created_s: float
    ) -> None:
        """Take the name.

        Raises:
            StartError: a live cluster has it, or the file cannot be written.
        """
        supervisor = process_record("supervisor", os.getpid())
        if supervisor is None:
            raise StartError("the process table cannot be read", code="process_table")
        logins = broker.credentials.by_role.items()
        record = ClusterRecord(
            name=config.cluster.name,
            prefix=f"anyserve/{config.cluster.name}",
            broker=broker.address,
            credentials={role.value: login for role, login in logins},
            supervisor=supervisor,
            control=str(home.control_socket),
            temp_dir=str(home.private),
            run_dir=config.run_dir,
            created_s=created_s,
            scenario=config.scenario,
            objects="" if home.objects is None else str(home.objects),
        )
        self._store.claim(record)
        self._record = record

    def save(self, processes: Iterable[ProcessRecord]) -> None:
        """Write down which processes run now."""
        if self._record is None:
            return
        self._record = msgspec.structs.replace(self._record, processes=list(processes))
        try:
            self._store.update(self._record)
        except OSError as error:  # the cluster itself is well
            _LOG.warning("the cluster's file could not be written: %s", error)

    def release(self) -> None:
        """Give the name back."""
        if self._record is not None:
            self._store.release(self._record)
            self._record = None
