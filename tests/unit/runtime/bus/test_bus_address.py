"""Broker URLs and credentials: read strictly, never shown."""

from __future__ import annotations

import pytest

from anyserve.errors import UsageError
from anyserve.runtime.bus.address import (
    BrokerAddress,
    Credential,
    Credentials,
    Role,
    parse_broker_url,
)


def test_a_full_url() -> None:
    address, credential = parse_broker_url("mqtts://me:p%40ss@broker.example:1234?ca=/etc/ca.pem")
    assert address == BrokerAddress("broker.example", 1234, tls=True, ca_file="/etc/ca.pem")
    assert credential == Credential("me", "p@ss")
    assert address.url == "mqtts://broker.example:1234"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [("mqtt://h", "h", 1883), ("mqtts://h/", "h", 8883), ("mqtt://[::1]:5", "::1", 5)],
)
def test_defaults(url: str, host: str, port: int) -> None:
    address, credential = parse_broker_url(url)
    assert (address.host, address.port, credential) == (host, port, None)


@pytest.mark.parametrize(
    "url", ["", "h:1883", "http://h", "mqtt://", "mqtt://u:secret@h:99999", "mqtt://u:secret@h/x"]
)
def test_a_bad_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_broker_url(url)
    assert caught.value.code == "broker_url"
    assert "secret" not in f"{caught.value}{caught.value.hint}"


def test_an_ipv6_url_can_be_read_back() -> None:
    address = BrokerAddress("::1", 1883)
    assert parse_broker_url(address.url) == (address, None)


def test_credentials_do_not_show() -> None:
    credentials = Credentials.generate()
    replica = credentials.of(Role.REPLICA)
    assert replica is not None
    assert replica.password not in repr(credentials)
    assert replica.password not in repr(replica)


def test_credentials_differ_and_survive_their_file() -> None:
    credentials = Credentials.generate()
    passwords = {c.password for c in credentials.by_role.values()}
    assert len(passwords) == len(Role)
    assert Credentials.from_dict(credentials.to_dict()) == credentials


def test_one_login_serves_all_roles() -> None:
    login = Credential("me", "pw")
    assert all(Credentials.shared(login).of(role) == login for role in Role)
    assert all(Credentials.shared(None).of(role) is None for role in Role)
