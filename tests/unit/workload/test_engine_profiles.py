from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from anyserve.core.engine.step_time import StepWork
from anyserve.core.spec import ClusterSpec, EngineSpec, ReplicaSpec
from anyserve.errors import UsageError
from anyserve.workload.plugins import PluginError
from anyserve.workload.profiles import (
    known_engine,
    load_profile,
    placed_profile,
    shipped_profiles,
    told_of,
)


def test_every_shipped_profile_says_where_it_comes_from() -> None:
    profiles = shipped_profiles()

    assert {"smollm2-135m", "minilm", "llama-3.1-8b-h100-sxm"} <= profiles.keys()
    for name, profile in profiles.items():
        assert profile.name == name
        assert profile.source
        assert profile.step_time.step_ps(StepWork(decodes=1, context=10)) > 0
        assert profile.published == ("data sheet" in profile.source)
        assert profile.published or profile.quality is not None, "measured, and how well"


def test_a_roofline_reads_the_weights_at_any_small_batch() -> None:
    times = shipped_profiles()["llama-3.1-8b-h100-sxm"].step_time

    one, many = (times.step_ps(StepWork(decodes=n)) for n in (1, 64))
    assert one == many
    assert 5e9 < one < 8e9  # 16 GB at 2.7 TB/s


def test_the_profile_of_the_model_is_taken_unless_another_is_named() -> None:
    assert known_engine(EngineSpec(model="minilm", task="embed")).profile.name == "minilm"
    named = known_engine(EngineSpec(model="minilm", profile="smollm2-135m"))
    assert (named.profile.name, named.guessed) == ("smollm2-135m", False)


@pytest.mark.parametrize(("task", "name"), [("generate", "smollm2-135m"), ("embed", "minilm")])
def test_of_an_unknown_model_a_small_one_is_taken_and_it_is_said(task: str, name: str) -> None:
    found = known_engine(EngineSpec(model="never-measured", task=task))  # type: ignore[arg-type]

    assert (found.profile.name, found.guessed) == (name, True)


def test_a_file_is_a_profile_and_lies_beside_the_scenario(tmp_path: Path) -> None:
    mine = msgspec.structs.replace(shipped_profiles()["minilm"], name="mine")
    (tmp_path / "mine.json").write_bytes(msgspec.json.encode(mine))

    name = placed_profile("mine.json", tmp_path)

    assert name == str(tmp_path / "mine.json")
    assert known_engine(EngineSpec(profile=name)).profile == mine
    assert placed_profile("minilm", tmp_path) == "minilm"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("minilmm", None, "profile_unknown"),
        ("there/is/none.json", None, "profile_missing"),
        ("broken.json", "{}", "profile_invalid"),
        ("old.json", None, "profile_invalid"),
    ],
)
def test_what_is_no_profile_is_refused(
    tmp_path: Path, name: str, content: str | None, code: str
) -> None:
    old = msgspec.structs.replace(shipped_profiles()["minilm"], format=99)
    (tmp_path / "old.json").write_bytes(msgspec.json.encode(old))
    if content is not None:
        (tmp_path / name).write_text(content)
    path = tmp_path / name
    with pytest.raises(UsageError) as caught:
        load_profile(str(path) if path.exists() else name)

    assert caught.value.code == code


def test_a_users_step_times_lie_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "own_times.py").write_text(
        "class Times:\n    def step_ps(self, work):\n        return 7 + work.decodes\n\n"
        "class NoTimes:\n    pass\n"
    )

    found = known_engine(EngineSpec(profile="own_times:Times"), tmp_path)

    assert found.step_time.step_ps(StepWork(decodes=3)) == 10
    with pytest.raises(PluginError, match="step_ps"):
        known_engine(EngineSpec(profile="own_times:NoTimes"), tmp_path)


def test_where_times_come_from_is_told_once_for_all_who_take_them() -> None:
    engines = [
        EngineSpec(model="smollm2-135m"),
        EngineSpec(model="smollm2-135m", threads=2),
        EngineSpec(profile="llama-3.1-8b-l4"),
        EngineSpec(profile="own_times:Times"),
        EngineSpec(kind="echo"),
    ]
    replicas = tuple(
        ReplicaSpec(id=f"r{number}", offers=(), engine=engine)
        for number, engine in enumerate(engines)
    )
    measured, published, own = told_of(ClusterSpec(name="c", capabilities=(), replicas=replicas))

    processor = shipped_profiles()["smollm2-135m"].machine["processor"]
    assert measured == f"smollm2-135m as measured on {processor}"
    assert published == "llama-3.1-8b-l4 by published figures"
    assert own == "own_times:Times"
