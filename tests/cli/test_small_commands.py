"""Commands that look at this machine and at themselves."""

from __future__ import annotations

import pytest
from cli_world import Cli

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.explaining import all_codes, explanation
from anyserve.version import __version__


def test_doctor_names_each_check_and_how_to_mend_it(cli: Cli) -> None:
    answer = cli("doctor", "--json")
    checks = {check["name"]: check for check in answer.json["checks"]}

    assert {"python", "vllm", "broker", "memory", "open files", "disk", "terminal"} <= set(checks)
    assert checks["python"]["grade"] == "ok"
    assert all(check["fix"] for check in checks.values() if check["grade"] != "ok")
    assert answer.code == (0 if answer.json["ok"] else 1)


def test_doctor_as_text_has_a_line_for_each_check(cli: Cli) -> None:
    names = [check["name"] for check in cli("doctor", "--json").json["checks"]]
    text = cli("doctor").out

    assert [name for name in names if name not in text] == []


def test_version_in_both_forms(cli: Cli) -> None:
    assert cli("--version").out == f"anyserve {__version__}\n"
    assert cli("--version", "--json").json["anyserve"] == __version__


def test_config_show_says_where_a_value_comes_from(cli: Cli) -> None:
    (cli.cwd / "anyserve.toml").write_text('runs = "from-file"\n')
    cli.environ["ANYSERVE_RUNS"] = "from-env"
    runs = cli("config", "show", "--json").json["settings"]["runs"]

    assert (runs["value"], runs["origin"]) == ("from-env", "environment")
    assert [one["value"] for one in runs["overrode"]] == ["from-file", "runs"]
    assert "runs           from-env" in cli("config", "show", "--origin").out
    assert cli("config", "path").out.startswith(f"{cli.cwd / 'anyserve.toml'}\n")


def test_a_wrong_settings_file_is_a_usage_error(cli: Cli) -> None:
    (cli.cwd / "anyserve.toml").write_text("rnus = 'x'\n")
    result = cli("status")

    assert result.code == 2
    assert "did you mean 'runs'?" in result.err


def test_nothing_runs_and_nothing_is_to_stop(cli: Cli) -> None:
    assert cli("status", "--json").json == {"schema": "anyserve.status/1", "clusters": []}
    assert cli("status").code == 0
    down = cli("down", "--json")
    assert (down.code, down.json["stopped"]) == (0, None)
    assert "nothing to stop" in cli("down", "mixed").err


def test_models_are_listed_and_a_wrong_name_is_missing(cli: Cli) -> None:
    names = [model["name"] for model in cli("models", "list", "--json").json["models"]]
    assert names == ["smollm2-135m", "minilm"]
    wrong = cli("models", "prepare", "gpt-17")
    assert (wrong.code, wrong.out) == (5, "")
    assert "smollm2-135m" in wrong.err


@pytest.mark.parametrize("code", all_codes())
def test_every_code_is_explained_in_whole_sentences(code: str) -> None:
    text = explanation(code)
    assert text is not None
    assert text.rstrip().endswith((".", "`", "!"))


def test_explain_without_a_code_lists_them_all(cli: Cli) -> None:
    assert list(cli("explain", "--json").json["codes"]) == all_codes()
    assert cli("explain", "as-s010").out.startswith("A key is not known")


def test_the_help_names_every_exit_code(cli: Cli) -> None:
    text = cli("--help").out
    assert all(f"  {code.value:<4} {code.meaning}\n" in text for code in ExitCode)
