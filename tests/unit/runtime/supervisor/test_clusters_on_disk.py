from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from anyserve.errors import StartError, UsageError
from anyserve.runtime.bus.address import BrokerAddress, Credential, Role
from anyserve.runtime.clusters import (
    ClusterRecord,
    ClusterStore,
    ProcessRecord,
    process_record,
    state_dir,
)


@pytest.fixture
def store(tmp_path: Path) -> ClusterStore:
    return ClusterStore(tmp_path / "clusters")


@pytest.fixture
def private_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="anyserve-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def ourselves() -> ProcessRecord:
    record = process_record("supervisor", os.getpid())
    assert record is not None
    return record


def an_earlier_process_with_our_pid() -> ProcessRecord:
    us = ourselves()
    return ProcessRecord(name=us.name, pid=us.pid, started_s=us.started_s - 10)


def record(name: str = "demo", **changes: object) -> ClusterRecord:
    made = ClusterRecord(
        name=name,
        prefix=f"anyserve/{name}",
        broker=BrokerAddress("127.0.0.1", 1883),
        credentials={Role.ORIGIN.value: Credential("origin", "s3cret-word")},
        supervisor=ourselves(),
        control="/tmp/anyserve-x/control",
        temp_dir="/tmp/anyserve-not-there",
        run_dir="/runs/1",
        created_s=1.0,
    )
    return msgspec.structs.replace(made, **changes)


def test_file_is_private_and_reads_back(store: ClusterStore) -> None:
    store.claim(record())
    status = store.path("demo").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert store.list() == [record()]
    assert [path.name for path in store.root.iterdir()] == ["demo.json"]


def test_password_never_shows_in_a_repr() -> None:
    assert "s3cret-word" not in repr(record())


def test_two_live_clusters_cannot_share_a_name(store: ClusterStore) -> None:
    store.claim(record())
    with pytest.raises(StartError, match="demo runs already") as refused:
        store.claim(record())
    assert "anyserve down demo" in refused.value.hint


def test_dead_cluster_gives_its_name_free(store: ClusterStore) -> None:
    store.claim(record(supervisor=an_earlier_process_with_our_pid()))
    store.claim(record())
    assert store.list() == [record()]


def test_stale_file_is_removed_with_the_private_directory(
    store: ClusterStore, private_dir: Path
) -> None:
    dead = record(supervisor=an_earlier_process_with_our_pid(), temp_dir=str(private_dir))
    store.claim(dead)
    assert store.list() == []
    assert not store.path("demo").exists()
    assert not private_dir.exists()


def test_directory_stays_while_a_process_of_the_cluster_lives(
    store: ClusterStore, private_dir: Path
) -> None:
    dead = an_earlier_process_with_our_pid()
    store.claim(record(supervisor=dead, temp_dir=str(private_dir), processes=[ourselves()]))
    assert store.list() == []
    assert private_dir.exists()


def test_directory_that_is_not_private_is_left_alone(
    store: ClusterStore, private_dir: Path
) -> None:
    private_dir.chmod(0o755)
    store.claim(record(supervisor=an_earlier_process_with_our_pid(), temp_dir=str(private_dir)))
    assert store.list() == []
    assert private_dir.exists()


def test_the_newest_live_cluster_is_the_default(store: ClusterStore) -> None:
    store.claim(record("old", created_s=1.0))
    store.claim(record("new", created_s=2.0))
    assert store.find(None).name == "new"
    assert store.find("old").name == "old"


def test_unknown_cluster_is_refused_with_the_names_that_run(store: ClusterStore) -> None:
    with pytest.raises(UsageError, match="no cluster runs here") as nothing:
        store.find(None)
    assert "anyserve up" in nothing.value.hint
    store.claim(record())
    with pytest.raises(UsageError, match="no cluster named other") as other:
        store.find("other")
    assert other.value.hint == "running: demo"


def test_files_that_are_none_of_ours_are_skipped(store: ClusterStore) -> None:
    store.claim(record())
    (store.root / "broken.json").write_text("{")
    assert [found.name for found in store.list()] == ["demo"]
    assert (store.root / "broken.json").exists()


def test_update_replaces_and_release_removes_only_our_own(store: ClusterStore) -> None:
    store.claim(record())
    store.update(record(processes=[ourselves()]))
    assert store.list()[0].processes == [ourselves()]
    store.release(record(supervisor=an_earlier_process_with_our_pid()))
    assert len(store.list()) == 1
    store.release(record())
    assert store.list() == []


def test_state_dir_follows_the_xdg_rules() -> None:
    assert state_dir({"XDG_STATE_HOME": "/state"}) == Path("/state/anyserve/clusters")
    assert state_dir({"XDG_STATE_HOME": "relative"}) == state_dir({})
    assert state_dir({}) == Path.home() / ".local/state/anyserve/clusters"


def test_zombie_and_unknown_pids_do_not_run() -> None:
    assert ourselves().runs()
    assert not an_earlier_process_with_our_pid().runs()
    assert not ProcessRecord(name="x", pid=2**22 + 1, started_s=1.0).runs()
    assert process_record("x", 2**22 + 1) is None
