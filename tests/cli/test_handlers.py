"""Users' handlers from the command line: shipped examples, an app that joins and is reloaded."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_world import Cli, Shell

EXAMPLES = Path(__file__).parents[2] / "examples"
QUESTION = json.dumps({"query": "tea", "documents": ["a train", "tea", "a tax"]})
APP = """\
import anyserve

app = anyserve.App()

@app.capability("echo.back", tone="plain")
async def back(ctx: anyserve.Context, text: str) -> str:
    return text + " {word}"
"""


@pytest.mark.timeout(180)
def test_the_reranker_runs_live_and_answers(shell: Shell) -> None:
    scenario = str(EXAMPLES / "reranker.yaml")
    up = shell.run("up", scenario, "--engine", "echo", "--keep")
    assert up.code == 0, up.err + up.out
    assert f"app reranker:app from {EXAMPLES / 'reranker.py'}" in up.err
    assert "3 of 3 expectations met" in up.out

    sent = shell.run("send", "-c", "rerank", "--json-payload", QUESTION)
    assert sent.code == 0, sent.err
    ranked = json.loads(sent.out)["results"]
    assert ranked[0]["index"] == 1
    assert ranked[0]["score"] == pytest.approx(1.0)
    empty = shell.run("send", "-c", "rerank", "--json-payload", '{"query": "q", "documents": []}')
    assert (empty.code, empty.out) == (1, "")
    assert "error[invalid_request]: there is nothing to rank (at $.documents)" in empty.err
    engine = shell.run("send", "-c", "embedding", "--json-payload", '"tea"', "--json")
    assert len(engine.json["answers"][0]["embedding"]) == 384
    assert "a handler serves rerank, and takes JSON" in shell.run("send", "-c", "rerank", "x").err
    assert "no JSON" in shell.run("send", "-c", "rerank", "--json-payload", "{").err
    assert "either TEXT or" in shell.run("send", "-c", "rerank").err

    trace = shell.run("trace", "1")
    assert "its handler asked for" in trace.out, trace.err
    calls = [line.split() for line in trace.out.splitlines() if "embedding" in line]
    assert len(calls) == 4
    assert {words[-2] for words in calls} == {"completed"}
    assert "asked for by the handler of player/" in shell.run("trace", calls[0][-1]).out
    assert shell.run("down").code == 0
    shell.assert_clean()


@pytest.mark.timeout(120)
def test_the_pipeline_runs_live_in_both_forms(shell: Shell) -> None:
    up = shell.run("up", str(EXAMPLES / "pipeline.yaml"), "--engine", "echo")

    assert up.code == 0, up.err + up.out
    assert "4 of 4 expectations met" in up.out
    events = (shell.cwd / "runs" / "latest" / "events.jsonl").read_text().splitlines()
    offered = [
        event
        for event in (json.loads(line)["event"] for line in events)
        if event["type"] == "request.offered"
    ]
    parents = {event["id"]: event.get("parent", "") for event in offered}
    calls = {event["capability"] for event in offered if event.get("parent")}
    assert calls == {"summarise", "embedding"}
    assert all(parent.startswith("player/") for parent in parents.values() if parent)
    shell.assert_clean()


@pytest.mark.timeout(180)
def test_an_app_joins_a_running_cluster_and_follows_its_code(
    shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario(duration="1s")
    assert shell.run("up", "tiny.yaml", "--keep", "--ui", "none").code == 0
    file = shell.cwd / "own_back.py"
    file.write_text(APP.format(word="one"))
    replica = shell.start("replica", "--app", "own_back:app", "--reload", "--concurrency", "2")
    assert str(file) in replica.wait_for("app own_back:app from")
    replica.wait_for("serves echo.back")

    def ask() -> str:
        said = shell.run("send", "-c", "echo.back", "--json-payload", '"say"')
        assert said.code == 0, said.err
        assert "answered by own-back" in said.err
        answer: str = json.loads(said.out)
        return answer

    assert ask() == "say one"
    _write(file, APP.format(word="two"))
    replica.wait_for("serves echo.back")
    assert ask() == "say two"
    _write(file, APP.format(word="three") + "\ndef broken(:\n")
    assert "SyntaxError" in replica.wait_for("the new code is not taken, the old worker stays")
    assert ask() == "say two"
    _write(file, APP.format(word="three").replace("echo.back", "other"))
    assert "has no handler for 'echo.back'" in replica.wait_for("the new code is not taken")
    _write(file, APP.format(word="four"))
    replica.wait_for("serves echo.back")
    assert ask() == "say four"

    second = shell.run("replica", "--app", "own_back:app", "--id", "s1")
    assert (second.code, "tiny has a replica s1 already" in second.err) == (2, True), second.err
    replica.interrupt()
    assert replica.finish().code == 130
    assert shell.run("down").code == 0
    shell.assert_clean()


def _write(file: Path, text: str) -> None:
    """As editors do: another file in its place, with a later time."""
    new = file.with_suffix(".new")
    new.write_text(text)
    later = file.stat().st_mtime_ns + 1_000_000
    os.utime(new, ns=(later, later))
    new.rename(file)


MODULES = {
    "absent": None,
    "broken": "raise RuntimeError('no luck')",
    "leaves": "import os\nos._exit(3)",
    "value": "app = 3",
    "empty": "import anyserve\napp = anyserve.App()",
    "other": APP.format(word="x"),
    "twice": APP.format(word="x") + "\napp.capability('echo.back')(back)",
    "prints": "print('hello')\nraise ValueError('after that')",
}


@pytest.mark.parametrize(
    ("module", "code", "said", "hint"),
    [
        ("absent", "plugin_missing", "no module 'own_absent'", "beside the scenario"),
        ("broken", "plugin_failed", "RuntimeError: no luck", "own_broken.py:1"),
        ("leaves", "plugin_failed", "importing 'own_leaves:app' ended the process (3)", ""),
        ("value", "plugin_shape", "is no anyserve.App but a value of type int", "own_value.py"),
        ("empty", "app_empty", "'own_empty:app' serves nothing", "@app.capability"),
        ("other", "handler_missing", "no handler for 'decode'", "it serves echo.back"),
        ("twice", "plugin_failed", "back serves it already", "own_twice.py"),
        ("prints", "plugin_failed", "ValueError: after that", "own_prints.py:2"),
    ],
)
def test_an_app_that_cannot_run_exits_2_before_anything_starts(
    module: str, code: str, said: str, hint: str, cli: Cli, scenario: Callable[..., Path]
) -> None:
    scenario()
    text = MODULES[module]
    if text is not None:
        (cli.cwd / f"own_{module}.py").write_text(text)
    changes = ("--set", f"cluster.replicas[s1].app=own_{module}:app", "--engine", "echo")
    streams = ("--set", "traffic.streams.chat.capability=decode.heavy")
    result = cli("up", _without_engine(cli.cwd), *changes, *streams)

    assert (result.code, result.out) == (2, ""), result.err
    lines = [line for line in result.err.splitlines() if line.startswith(("error", "help"))]
    assert lines[0].startswith(f"error[{code}]: ")
    assert said in lines[0]
    assert hint in "".join(lines[1:])
    assert not (cli.cwd / "runs").exists()


def _without_engine(cwd: Path) -> str:
    text = (cwd / "tiny.yaml").read_text()
    first = "      engine: {kind: echo, max_model_len: 128, step: 1ms}\n"
    assert first in text
    (cwd / "tiny.yaml").write_text(text.replace(first, "", 1))
    return "tiny.yaml"


def test_checking_does_not_import_the_app(cli: Cli, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "reranker.yaml", cli.cwd)
    (cli.cwd / "reranker.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")

    assert cli("scenario", "validate", "reranker.yaml").code == 0
    for kind in ("echo", "model", "vllm"):
        plan = cli("up", "reranker.yaml", "--engine", kind, "--dry-run", "--json")
        engines = {one["id"]: (one["engine"], one["app"]) for one in plan.json["replicas"]}
        assert engines == {"r1": ("none", "reranker:app"), "e1": (kind, None)}
    text = cli("up", "reranker.yaml", "--engine", "echo", "--dry-run").out
    assert "r1: rerank; app reranker:app, 4 at once" in text
    alone = cli("worker", "reranker.yaml", "--id", "r1")
    assert (alone.code, "has no engine" in alone.err) == (2, True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ("cluster.replicas.r1.app=rerank er", "AS-S040", "does not name an app"),
        ("cluster.replicas.r1.app={name: a:b, serves: [embed]}", "AS-S041", "serves 'embed'"),
        ("cluster.replicas.e1.app=a:b", "AS-S041", "its engine would have nothing to do"),
        ("traffic.streams.questions.prompt_tokens=4", "AS-S031", "takes a payload"),
        ("cluster.objects.limit=3", "AS-S017", "'3' is not a size"),
        ("cluster.call_depth=17", "AS-S013", "at most 16"),
    ],
)
def test_what_is_wrong_in_the_file_is_pointed_at(
    cli: Cli, change: str, code: str, said: str
) -> None:
    result = cli("up", str(EXAMPLES / "reranker.yaml"), "--dry-run", "--set", change)

    assert result.code == 2
    assert f"error[{code}]" in result.err
    assert said in result.err


def test_a_replica_without_engine_or_app_is_incomplete(
    cli: Cli, scenario: Callable[..., Path]
) -> None:
    scenario()
    result = cli("scenario", "validate", _without_engine(cli.cwd))

    assert result.code == 2
    assert "error[AS-S011]: 'engine' is missing in cluster.replicas.s1" in result.err + result.out
    assert "tiny.yaml:8:5" in result.err + result.out
