"""Environment over ./anyserve.toml over pyproject.toml over the user's file over the default."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyserve.cli.settings import SETTINGS, load_settings, user_config_path
from anyserve.errors import UsageError


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    config = tmp_path / "xdg" / "anyserve"
    config.mkdir(parents=True)
    return {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}


def test_each_source_wins_over_those_below(tmp_path: Path, environ: dict[str, str]) -> None:
    def value() -> object:
        return load_settings(environ, tmp_path).value("runs")

    assert value() == "runs"
    user_config_path(environ).write_text('runs = "user"\n')
    assert value() == "user"
    (tmp_path / "pyproject.toml").write_text('[tool.anyserve]\nruns = "project"\n')
    assert value() == "project"
    (tmp_path / "anyserve.toml").write_text('runs = "here"\n')
    assert value() == "here"
    environ["ANYSERVE_RUNS"] = "env"
    assert value() == "env"

    resolved = load_settings(environ, tmp_path).resolve("runs")
    assert resolved.origin == "environment"
    assert [entry[1] for entry in resolved.overrode] == ["here", "project", "user", "runs"]


def test_the_environment_is_read_by_type(tmp_path: Path, environ: dict[str, str]) -> None:
    environ |= {"ANYSERVE_SEED": "7", "ANYSERVE_ASCII": "1", "ANYSERVE_MEMORY_CHECK": "0"}
    settings = load_settings(environ, tmp_path)

    assert settings.value("seed") == 7
    assert settings.value("ascii") is True
    assert settings.value("memory_check") is False


@pytest.mark.parametrize(
    ("variable", "text"), [("ANYSERVE_SEED", "seven"), ("ANYSERVE_ASCII", "maybe")]
)
def test_a_value_that_does_not_fit_names_its_variable(
    variable: str, text: str, tmp_path: Path, environ: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match=variable):
        load_settings({**environ, variable: text}, tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed = true", "seed"),
        ('seed = "7"', "seed"),
        ("runs = 7", "runs"),
        ("sead = 7", "no setting 'sead'"),
        ("seed =", "not TOML"),
    ],
)
def test_a_wrong_file_is_named(
    text: str, said: str, tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / "anyserve.toml").write_text(text)

    with pytest.raises(UsageError, match=r"anyserve\.toml") as caught:
        load_settings(environ, tmp_path)
    assert said in caught.value.message


def test_dashes_may_be_written_for_underscores(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "anyserve.toml").write_text("record-text = true\n")

    assert load_settings(environ, tmp_path).value("record_text") is True


def test_somebody_elses_broken_pyproject_is_not_ours_to_judge(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool")

    assert load_settings(environ, tmp_path).value("runs") == "runs"


def test_a_relative_xdg_directory_does_not_count() -> None:
    assert user_config_path({"XDG_CONFIG_HOME": "here"}).is_relative_to(Path.home())


def test_defaults_are_of_their_own_kind() -> None:
    for setting in SETTINGS:
        assert setting.default is None or type(setting.default) is setting.kind
