from __future__ import annotations

from pathlib import Path

import pytest

from anyserve.errors import UsageError
from anyserve.runtime.bus.address import BrokerAddress, Credential, Role
from anyserve.runtime.clusters import ClusterRecord, ProcessRecord
from anyserve.runtime.join import join_by, join_file

RECORD = ClusterRecord(
    name="demo",
    prefix="anyserve/demo",
    broker=BrokerAddress("127.0.0.1", 1883),
    credentials={role.value: Credential(role.value, f"pw-of-{role}") for role in Role},
    supervisor=ProcessRecord(name="supervisor", pid=1, started_s=1.0),
    control="/c",
    temp_dir="/t",
    run_dir="/r",
    created_s=0.0,
)


def test_url_and_password_of_the_environment() -> None:
    environ = {"ANYSERVE_BROKER_USER": "me", "ANYSERVE_BROKER_PASSWORD": "secret"}
    joining = join_by("mqtt://host:77", None, environ)
    assert joining.broker == BrokerAddress("host", 77)
    assert joining.credentials.of(Role.REPLICA) == Credential("me", "secret")
    assert joining.cluster is None


def test_url_of_the_environment_may_hold_the_password() -> None:
    joining = join_by(None, None, {"ANYSERVE_BROKER_URL": "mqtt://me:secret@host"})
    assert joining.credentials.of(Role.ORIGIN) == Credential("me", "secret")


def test_password_on_the_command_line_is_refused_without_repeating_it() -> None:
    with pytest.raises(UsageError, match="command line") as refused:
        join_by("mqtt://me:sesame@host", None, {})
    assert "sesame" not in refused.value.message + refused.value.hint


def test_file_for_another_machine_holds_one_role_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "join.json"
    path.write_bytes(join_file(RECORD, (Role.REPLICA,), host="10.0.0.1"))
    joining = join_by(None, path, {})
    assert joining.broker == BrokerAddress("10.0.0.1", 1883)
    assert joining.cluster == "demo"
    assert joining.credentials.of(Role.REPLICA) == Credential("replica", "pw-of-replica")
    assert joining.credentials.of(Role.SCHEDULER) is None


def test_file_named_by_the_environment_and_another_url(tmp_path: Path) -> None:
    path = tmp_path / "join.json"
    path.write_bytes(join_file(RECORD, (Role.REPLICA,)))
    joining = join_by("mqtt://near", None, {"ANYSERVE_CREDENTIALS_FILE": str(path)})
    assert joining.broker.host == "near"
    assert joining.credentials.of(Role.REPLICA) == Credential("replica", "pw-of-replica")


@pytest.mark.parametrize("content", [None, "sesame"])
def test_unreadable_file_is_refused_without_repeating_it(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "join.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError) as refused:
        join_by(None, path, {})
    assert "sesame" not in refused.value.message


def test_no_broker_at_all_is_refused_with_the_ways_to_name_one() -> None:
    with pytest.raises(UsageError, match="no broker") as refused:
        join_by(None, None, {})
    assert "ANYSERVE_BROKER_URL" in refused.value.hint
