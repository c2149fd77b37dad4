"""The broker of a cluster: our own, kept alive, or somebody else's."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from anyserve.errors import AnyServeError, StartError, UsageError
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.embedded import EmbeddedBroker
from anyserve.runtime.bus.address import (
    BrokerAddress,
    Credential,
    Credentials,
    Role,
    parse_broker_url,
)
from anyserve.runtime.join import PASSWORD_ENV, USER_ENV
from anyserve.runtime.supervisor.config import SupervisorConfig
from anyserve.runtime.supervisor.home import GuardedDirectory, Home, home_of
from anyserve.runtime.supervisor.restarts import RestartPolicy, Restarts

_LOG = logging.getLogger(__name__)


class ClusterBroker:
    """Where the cluster's messages go, and the private directory that lives as long."""

    def __init__(self, config: SupervisorConfig, environ: Mapping[str, str]) -> None:
        self._config = config
        self._environ = environ
        self._embedded: EmbeddedBroker | None = None
        self._directory: GuardedDirectory | None = None
        self._address: BrokerAddress | None = None
        self._down_s: float | None = None
        self.credentials = Credentials({})

    @property
    def embedded(self) -> EmbeddedBroker | None:
        """Our own broker, where we have one."""
        return self._embedded

    @property
    def address(self) -> BrokerAddress:
        """Where it is; known once started."""
        assert self._address is not None
        return self._address

    async def start(self) -> Home:
        """Start it, or find out where it is; make the cluster's private directory.

        Raises:
            AnyServeError: no broker is installed, or it does not come up.
        """
        run_dir = Path(self._config.run_dir)
        url = self._config.cluster.broker.url
        if url is not None:
            self._address, login = parse_broker_url(url)
            self.credentials = self._external(login)
            self._directory = GuardedDirectory()
            await self._directory.start()
            return Home(self._directory.path, run_dir)
        rules = AccessRules(self._config.cluster.name)
        self._embedded = EmbeddedBroker(rules, port=self._config.broker_port)
        self.credentials = self._embedded.credentials
        await self._embedded.start()
        self._address = self._embedded.address
        return home_of(self._embedded, run_dir)

    def crash(self, down_s: float) -> None:
        """SIGKILL it; whoever minds it starts it again after `down_s`.

        Raises:
            UsageError: it is not ours, or does not run now.
        """
        if self._embedded is None:
            hint = "leave `broker` out of the scenario to get one of its own"
            raise UsageError("this broker is not ours to restart", code="foreign_broker", hint=hint)
        if self._embedded.pid is None:
            raise AnyServeError("the broker does not run now", code="not_running")
        self._down_s = down_s
        self._embedded.send_kill()

    def ordered_down_s(self) -> float | None:
        """How long it is to stay away after an end that was ordered; None: nobody wanted it."""
        down_s, self._down_s = self._down_s, None
        return down_s

    async def close(self) -> None:
        """End it, if it is ours, and remove the private directory."""
        if self._embedded is not None:
            await self._embedded.close()
        if self._directory is not None:
            await self._directory.close()

    def _external(self, login: Credential | None) -> Credentials:
        given = self._config.credentials
        if given is not None:
            return Credentials({Role(role): who for role, who in given.items()})
        if PASSWORD_ENV in self._environ:
            user = self._environ.get(USER_ENV, "" if login is None else login.user)
            return Credentials.shared(Credential(user, self._environ[PASSWORD_ENV]))
        return Credentials.shared(login)


async def mind_broker(
    broker: EmbeddedBroker,
    on_exit: Callable[[float | None], None],
    *,
    ordered: Callable[[], float | None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    policy: RestartPolicy | None = None,
) -> None:
    """Start the broker again whenever it dies; returns when it is given up. Cancel it to stop.

    `on_exit` is told the wait before the restart, None for the last one. `ordered` tells how long
    it stays away where somebody wanted its end, which is not held against it.

    Raises:
        StartError: it does not come up again.
    """
    restarts = Restarts(policy or RestartPolicy())
    while True:
        started_s = clock()
        await broker.wait_exit()
        now_s = clock()
        delay_s = ordered()
        if delay_s is None:
            delay_s = restarts.after_exit(now_s, now_s - started_s)
        on_exit(delay_s)
        if delay_s is None:
            return
        await asyncio.sleep(delay_s)
        try:
            await broker.restart()
        except StartError:
            _LOG.exception("the broker does not come up again")
            raise
        _LOG.info("the broker runs again at %s", broker.address.url)
