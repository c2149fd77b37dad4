"""Somebody else's mosquitto with its default settings: the stall is measured and named."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.config import BrokerKind, find_broker
from anyserve.runtime.broker.embedded import EmbeddedBroker
from anyserve.runtime.broker.external import QUEUE_WARNING, check_external_broker, warnings_for
from anyserve.runtime.bus.address import BrokerAddress, Role, parse_broker_url
from anyserve.runtime.bus.mqtt import MqttBus

RULES = AccessRules("c")


def bus_at(address: BrokerAddress, broker: EmbeddedBroker | None = None) -> MqttBus:
    credential = broker.credentials.of(Role.REPLICA) if broker else None
    return MqttBus(
        address,
        credential,
        client_id="check",
        on_message=lambda _topic, _payload, _retain: None,
    )


@pytest.fixture
async def default_mosquitto(tmp_path: Path) -> AsyncIterator[BrokerAddress]:
    if shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin") is None:
        pytest.skip("mosquitto is not installed here (apt install mosquitto)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
    process = await asyncio.create_subprocess_exec(
        str(find_broker(BrokerKind.MOSQUITTO).path),
        "-c",
        str(config),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    address, _ = parse_broker_url(f"mqtt://127.0.0.1:{port}")
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                await writer.wait_closed()
                break
    yield address
    process.terminate()
    await process.wait()


async def test_a_default_mosquitto_is_found_to_stall(default_mosquitto: BrokerAddress) -> None:
    bus = bus_at(default_mosquitto)
    await bus.start()
    check = await check_external_broker(bus, RULES, Role.REPLICA)
    await bus.close()
    assert any("set_tcp_nodelay true" in warning for warning in check.warnings), check
    assert QUEUE_WARNING in check.warnings


async def test_a_well_set_broker_is_not_accused() -> None:
    async with EmbeddedBroker(RULES) as broker:
        bus = bus_at(broker.address, broker)
        await bus.start()
        check = await check_external_broker(bus, RULES, Role.REPLICA)
        await bus.close()
    assert check.warnings == warnings_for(check.round_trip_s)
    assert check.round_trip_s > 0


@pytest.mark.parametrize(
    ("round_trip_s", "expected"), [(0.001, False), (0.042, True), (0.044, True), (0.2, False)]
)
def test_only_the_tell_tale_delay_is_called_a_stall(round_trip_s: float, expected: bool) -> None:
    stalls = [w for w in warnings_for(round_trip_s) if "set_tcp_nodelay" in w]
    assert bool(stalls) is expected
