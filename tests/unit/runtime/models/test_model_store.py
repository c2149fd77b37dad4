from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from anyserve.errors import StartError
from anyserve.runtime.models.store import ModelProgress, ModelStore, Progress


def quiet(_progress: ModelProgress) -> None:
    pass


class Builder:
    """Writes one file and counts how often it was asked to."""

    def __init__(self, content: bytes = b"weights") -> None:
        self.calls = 0
        self.content = content

    def __call__(self, folder: Path, _progress: Progress) -> None:
        self.calls += 1
        (folder / "sub").mkdir()
        (folder / "sub" / "model.bin").write_bytes(self.content)


def test_a_model_is_built_once(tmp_path: Path) -> None:
    store, build = ModelStore(tmp_path), Builder()
    assert not store.ready("m")

    folder = store.get("m", "pkg 1.0", build, quiet)
    again = store.get("m", "pkg 1.0", build, quiet)

    assert folder == again == tmp_path / "m"
    assert (folder / "sub" / "model.bin").read_bytes() == b"weights"
    assert build.calls == 1
    assert store.ready("m", full=True)


def test_a_truncated_file_is_noticed_and_the_model_built_again(tmp_path: Path) -> None:
    store, build = ModelStore(tmp_path), Builder()
    file = store.get("m", "pkg", build, quiet) / "sub" / "model.bin"
    file.write_bytes(b"weig")

    store.get("m", "pkg", build, quiet)

    assert build.calls == 2
    assert file.read_bytes() == b"weights"


def test_a_changed_byte_is_noticed_by_the_checksum(tmp_path: Path) -> None:
    store, build = ModelStore(tmp_path), Builder()
    file = store.get("m", "pkg", build, quiet) / "sub" / "model.bin"
    stat = file.stat()
    file.write_bytes(b"weighty")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert store.ready("m")  # the cheap look believes size and time
    assert not store.ready("m", full=True)


def test_a_file_with_another_time_but_the_same_bytes_is_fine(tmp_path: Path) -> None:
    store, build = ModelStore(tmp_path), Builder()
    file = store.get("m", "pkg", build, quiet) / "sub" / "model.bin"
    os.utime(file, ns=(1, 1))

    assert store.ready("m")


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path, _progress: Progress) -> None:
        (folder / "half").write_bytes(b"x")
        raise ValueError("broken source")

    store = ModelStore(tmp_path)
    with pytest.raises(ValueError, match="broken source"):
        store.get("m", "pkg", fail, quiet)

    assert [path.name for path in tmp_path.iterdir()] == [".m.lock"]


def test_what_a_dead_process_left_is_cleared(tmp_path: Path) -> None:
    left = tmp_path / ".m.part-dead"
    left.mkdir()

    ModelStore(tmp_path).get("m", "pkg", Builder(), quiet)

    assert not left.exists()


def test_two_who_want_it_at_once_get_one_build(tmp_path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def build(folder: Path, _progress: Progress) -> None:
        calls.append(1)
        inside.set()
        go_on.wait(10)
        (folder / "f").write_bytes(b"1")

    waits = threading.Event()

    def second_progress(progress: ModelProgress) -> None:
        if "waiting" in progress.stage:
            waits.set()

    def get(progress: Progress) -> None:
        ModelStore(tmp_path).get("m", "pkg", build, progress)

    first = threading.Thread(target=get, args=(quiet,))
    second = threading.Thread(target=get, args=(second_progress,))
    first.start()
    assert inside.wait(10)
    second.start()
    assert waits.wait(10)
    go_on.set()
    first.join(10)
    second.join(10)

    assert calls == [1]
    assert ModelStore(tmp_path).ready("m", full=True)


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")

    with pytest.raises(StartError) as caught:
        ModelStore(blocker / "models").get("m", "pkg", Builder(), quiet)

    assert "XDG_CACHE_HOME" in caught.value.hint


def test_progress_ends_at_one(tmp_path: Path) -> None:
    seen: list[ModelProgress] = []
    ModelStore(tmp_path).get("m", "pkg", Builder(), seen.append)

    assert seen[-1] == ModelProgress("ready", 1.0)
