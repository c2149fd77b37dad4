from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from anyserve.errors import ScenarioError
from anyserve.workload import explain
from anyserve.workload.load import load_scenario, parse_scenario
from anyserve.workload.problems import (
    Problem,
    ScenarioInvalid,
    count_line,
    dotted,
    nearest,
    render,
    to_dicts,
)

ProblemsOf = Callable[..., list[Problem]]
PACKAGE = Path(explain.__file__).parent

BROKEN = """\
version: 2
name: broken
cluster:
  capabilities:
    decode: {upgrade: decode.heavy}
    decode.heavy: {queue_limt: 4}
    decode: {}
  replicas:
    s1:
      capabilities: [decode, decod]
      engine: {kind: vlm, model: smollm2-135m}
    h1:
      engine: {model: smollm2-135m}
traffic:
  phases:
    - {name: all, duration: 60}
  streams:
    chat: {capability: decode, rate: 1, prompt_tokens: 8, output_tokens: 8, entry: s2}
faults:
  - {at: 5s, kill: {worker: s9}}
expect:
  - requests.complete == requests.offered
"""

RENDERED = """\
error[AS-S009]: only version 1 exists
  --> broken.yaml:1:10
  |
1 | version: 2
  |          ^
help: write `version: 1`

error[AS-S010]: unknown key 'queue_limt' in cluster.capabilities[decode.heavy]
  --> broken.yaml:6:20
  |
6 |     decode.heavy: {queue_limt: 4}
  |                    ^^^^^^^^^^
help: did you mean 'queue_limit'?

error[AS-S003]: 'decode' stands here a second time; the first is on line 5
  --> broken.yaml:7:5
  |
7 |     decode: {}
  |     ^^^^^^
help: keep one of them

error[AS-S020]: no capability 'decod' in cluster.capabilities
  --> broken.yaml:10:30
   |
10 |       capabilities: [decode, decod]
   |                              ^^^^^
help: did you mean 'decode'?

error[AS-S016]: 'kind' must be 'auto', 'vllm', 'model', 'echo' or 'none', not 'vlm'
  --> broken.yaml:11:22
   |
11 |       engine: {kind: vlm, model: smollm2-135m}
   |                      ^^^
help: did you mean 'vllm'?

error[AS-S011]: 'capabilities' is missing in cluster.replicas.h1
  --> broken.yaml:12:5
   |
12 |     h1:
   |     ^^

error[AS-S014]: 'duration' 60 has no unit
  --> broken.yaml:16:29
   |
16 |     - {name: all, duration: 60}
   |                             ^^
help: write a duration as 250ms, 60s or 1m30s

error[AS-S021]: no replica 's2' to enter at
  --> broken.yaml:18:84
   |
18 |     chat: {capability: decode, rate: 1, prompt_tokens: 8, output_tokens: 8, entry: s2}
   |                                                                                    ^^
help: known: any, h1, s1, scheduler

error[AS-S021]: no replica 's9'
  --> broken.yaml:20:29
   |
20 |   - {at: 5s, kill: {worker: s9}}
   |                             ^^
help: known: h1, s1

error[AS-S026]: no metric 'requests.complete'
  --> broken.yaml:22:5
   |
22 |   - requests.complete == requests.offered
   |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
help: did you mean 'requests.completed'?

10 problems in broken.yaml"""


def problems_of(text: str) -> list[Problem]:
    with pytest.raises(ScenarioInvalid) as caught:
        parse_scenario(text, file="broken.yaml")
    return caught.value.problems


def test_every_problem_at_once_with_its_place() -> None:
    assert render(problems_of(BROKEN)) == RENDERED


def test_as_json() -> None:
    first = json.loads(json.dumps(to_dicts(problems_of(BROKEN))))[0]
    assert first == {
        "code": "AS-S009",
        "message": "only version 1 exists",
        "hint": "write `version: 1`",
        "file": "broken.yaml",
        "line": 1,
        "column": 10,
        "path": "version",
    }


def test_the_error_is_in_the_tree_and_says_the_first() -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(BROKEN, file="broken.yaml")
    assert caught.value.exit_code == 2
    assert caught.value.code == "AS-S009"
    assert str(caught.value) == "broken.yaml:1: only version 1 exists"


def test_tabs_before_the_caret_are_kept() -> None:
    problem = Problem("AS-S010", "x", "", "f", 1, 3, 2, "\t\tab", "")
    assert render([problem]).splitlines()[4] == "  | \t\t^^"


def test_what_is_missing_at_the_end_is_shown_after_the_last_thing() -> None:
    (problem,) = problems_of("version: 1\nname: {a\n\n")
    assert (problem.line, problem.source_line) == (2, "name: {a")
    assert render([problem]).splitlines()[4] == "  |         ^"


def test_count_of_one() -> None:
    assert count_line([Problem("AS-S001", "x", file="f")]) == "1 problem in f"


def test_dotted_paths_are_those_that_set_takes() -> None:
    loc = ("cluster", "capabilities", "decode.heavy", "x", 3)
    assert dotted(loc) == "cluster.capabilities[decode.heavy].x[3]"


def test_nearest_names_the_closest_or_all_of_a_few() -> None:
    assert nearest("rte", ["rate", "entry"]) == "did you mean 'rate'?"
    assert nearest("zzz", ["rate", "entry"]) == "known: entry, rate"
    assert nearest("zzz", [f"name{n}" for n in range(50)]) == ""


@pytest.mark.parametrize(
    ("override", "code", "path"),
    [
        ("version=2", "AS-S009", "version"),
        ("name=Has Blank", "AS-S015", "name"),
        ("nam=x", "AS-S010", "nam"),
        ("cluster.delegation.limit=2", "AS-S013", "cluster.delegation.limit"),
        ("cluster.delegation.overload=true", "AS-S039", None),
        ("cluster.delegation.limit=yes", "AS-S012", "cluster.delegation.limit"),
        ("cluster.capabilities[decode].reserve=1", "AS-S013", None),
        ("cluster.capabilities[decode].upgrade=decode.hevy", "AS-S020", None),
        ("cluster.capabilities[decode.heavy].upgrade=decode", "AS-S022", None),
        ("cluster.capabilities[decode].upgrade=decode", "AS-S022", None),
        ("cluster.capabilities[Decode]={}", "AS-S015", None),
        (
            "cluster.replicas[e-2]={capabilities: [embedding], engine: {kind: echo, task: embed}}",
            "AS-S023",
            None,
        ),
        ("cluster.replicas[any]={capabilities: [decode], engine: {kind: echo}}", "AS-S023", None),
        ("cluster.replicas[s1].id=s{n}", "AS-S023", None),
        ("cluster.replicas[s1].id=s", "AS-S015", None),
        ("cluster.replicas[s1].capabilities=[decod]", "AS-S020", None),
        ("cluster.replicas[s1].capabilities=[]", "AS-S013", None),
        ("cluster.replicas[s1].capabilities=[3]", "AS-S012", None),
        ("cluster.replicas[s1].engine.model=null", "AS-S032", None),
        ("cluster.replicas[s1].engine.step=5", "AS-S014", None),
        ("cluster.replicas[s1].engine.kv_cache_gib=1e400", "AS-S050", None),
        ("cluster.replicas[e].count=0", "AS-S013", None),
        ("cluster.replicas[s1].engine.max_num_seqs=4", "", None),
        ("cluster.scheduler.policy=least-loadd", "AS-S036", None),
        ("cluster.scheduler.policy=my.mod:Policy", "", None),
        ("cluster.replicas[s1].engine.profile=smollm-135m", "AS-S045", None),
        ("cluster.replicas[s1].engine.profile=minilm", "", None),
        ("cluster.replicas[s1].engine.profile=mine.json", "", None),
        ("cluster.replicas[s1].engine.profile=my.mod:Times", "", None),
        ("cluster.scheduler.lost_after=1s", "AS-S013", None),
        ("cluster.broker.url=http://x", "AS-S015", None),
        ("cluster.broker.url=mqtt://", "AS-S015", None),
        ("cluster.broker.url=mqtt://u:p@host", "AS-S037", None),
        ("cluster.broker.url=mqtt://host:99999", "AS-S015", None),
        ("cluster.broker.url=mqtts://host:8883", "", None),
        ("traffic.streams.chat.capability=decoder", "AS-S020", None),
        ("traffic.streams.chat.entry=s3", "AS-S021", None),
        ("traffic.streams.chat.entry=e", "", None),
        ("traffic.streams.chat.entry=e-1", "", None),
        ("traffic.streams.chat.entry=any", "", None),
        ("traffic.streams.chat.attributes={model: other}", "AS-S024", None),
        ("traffic.streams.chat.prompt_tokens=4000", "AS-S028", None),
        ("traffic.streams.chat.prompt_tokens=600", "", None),
        ("traffic.streams.chat.prompt_tokens={uniform: {min: 9, max: 3}}", "AS-S034", None),
        ("traffic.streams.chat.prompt_tokens={normal: {mean: 9}}", "AS-S012", None),
        ("traffic.streams.chat.prompt_tokens=true", "AS-S012", None),
        ("traffic.streams.chat.prompt_tokens=0", "AS-S013", None),
        ("traffic.streams.chat.output_tokens=null", "AS-S031", None),
        ("traffic.streams.search.output_tokens=3", "AS-S031", None),
        ("traffic.streams.search.capability=decode", "AS-S031", None),
        ("traffic.streams.chat.prefix={tokens: 33}", "AS-S034", None),
        ("traffic.streams.chat.prefix={tokens: 32}", "", None),
        ("traffic.streams.chat.concurrency=4", "AS-S042", None),
        ("traffic.streams.chat.rate=null", "AS-S042", None),
        ("traffic.streams.chat.trace={file: x.csv}", "AS-S042", None),
        ("traffic.streams.chat.sessions={turns: 3, think: 1s}", "", None),
        ("traffic.streams.chat.sessions={}", "AS-S011", None),
        ("traffic.streams.chat.think=1s", "AS-S042", None),
        ("traffic.streams.chat.requests=9", "AS-S042", None),
        ("traffic.streams.chat.arrivals=gamma", "", None),
        ("traffic.streams.chat.cv=3", "AS-S042", None),
        ("traffic.streams.chat.arrivals=bursty", "AS-S042", None),
        ("traffic.streams.chat.burst={on: 1s, off: 2s}", "AS-S042", None),
        ("traffic.streams.chat.prompt_tokens=null", "AS-S011", None),
        ("cluster.hosts={cores: 2}", "AS-S018", None),
        ("traffic.streams.chat.rate=-1", "AS-S013", None),
        ("traffic.streams={}", "AS-S013", None),
        ("traffic.phases=[]", "AS-S013", None),
        ("traffic.phases[calm].rates={chatt: 3}", "AS-S025", None),
        ("traffic.phases[calm].duration=0s", "AS-S013", None),
        ("traffic.phases[*].scale=0", "AS-S029", "traffic"),
        ("cluster.replicas[e].capabilities=[decode.heavy, embedding]", "AS-S030", None),
        ("faults[0].at=15s", "AS-S038", "faults[0].at"),
        ("faults[0].at=14999ms", "", None),
        ("faults[0]={at: 1s}", "AS-S035", None),
        ("faults[0].hang={worker: s1}", "AS-S035", None),
        ("faults[0].kill={worker: s1, replica: s1}", "AS-S035", None),
        ("faults[0].kill={}", "AS-S035", None),
        ("faults[0].for=3s", "AS-S035", None),
        ("faults[0].kill={worker: e}", "AS-S021", None),
        ("faults[0]={at: 1s, explode: {}}", "AS-S010", None),
        ("expect=[ttft.p95_ms<3]", "AS-S027", None),
        ("expect=[ttft.p96_ms < 3]", "AS-S026", None),
        ("expect=[requests.completed == requests.offerd]", "AS-S026", None),
        ("expect=[replicas.s2.completed > 1]", "AS-S026", None),
        ("expect=[replicas.e-2.completed > 1]", "", None),
        ("expect=[delegations.by_edge.decode->decode.hevy > 1]", "AS-S026", None),
        ("expect=[3]", "AS-S012", None),
        ("slo.capabilities={decod: {ttft: 1s}}", "AS-S020", None),
    ],
)
def test_each_rule(problems_with: ProblemsOf, override: str, code: str, path: str | None) -> None:
    problems = problems_with(override)
    assert {problem.code for problem in problems} == ({code} if code else set())
    if path is not None:
        assert problems[0].path == path
    for problem in problems:
        assert problem.message
        assert problem.file in {f"--set {override}", "<text>"}


def test_the_ladder_shows_its_circle_once(problems_with: ProblemsOf) -> None:
    (problem,) = problems_with("cluster.capabilities[decode.heavy].upgrade=decode")
    assert "decode -> decode.heavy -> decode" in problem.message


def test_a_deep_circle_that_others_lead_into(problems_with: ProblemsOf) -> None:
    problems = problems_with(
        "cluster.capabilities[embedding].upgrade=decode",
        "cluster.capabilities[decode.heavy].upgrade=decode",
    )
    assert [problem.code for problem in problems].count("AS-S022") == 1


def test_slots_beyond_the_engine(problems_with: ProblemsOf) -> None:
    (problem,) = problems_with(
        "cluster.replicas[s1].engine.max_num_seqs=4", "cluster.replicas[s1].concurrency=8"
    )
    assert problem.code == "AS-S033"


def test_a_limit_beyond_the_context(problems_with: ProblemsOf) -> None:
    (problem,) = problems_with(
        "cluster.replicas[s1].capabilities={decode: {limits: {max_tokens: 513}}}"
    )
    assert problem.code == "AS-S033"


@pytest.mark.parametrize("gpus", ["1.5", "0.001"])
def test_a_number_of_gpus_that_nobody_can_have(problems_with: ProblemsOf, gpus: str) -> None:
    (problem,) = problems_with(f"cluster.replicas[s1].engine.gpus={gpus}")
    assert problem.code == "AS-S013"
    assert f"cannot have {gpus} GPUs" in problem.message


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]", "3", "just words"])
def test_files_that_hold_no_scenario(text: str) -> None:
    assert {problem.code for problem in problems_of(text)} == {"AS-S006"}


@pytest.mark.parametrize("key", ["version", "name", "cluster", "traffic"])
def test_what_is_needed(base: str, key: str) -> None:
    lines, keep, out = base.splitlines(), True, []
    for line in lines:
        if not line.startswith(" "):
            keep = not line.startswith(f"{key}:")
        if keep:
            out.append(line)
    problems = problems_of("\n".join(out))
    assert ("AS-S011", f"'{key}' is missing") in {(one.code, one.message) for one in problems}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    not_text = tmp_path / "latin.yaml"
    not_text.write_bytes(b"name: caf\xe9\n")
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"#" * (1 << 21))
    for path in (tmp_path / "none.yaml", tmp_path, not_text, huge):
        with pytest.raises(ScenarioInvalid) as caught:
            load_scenario(path)
        assert [problem.code for problem in caught.value.problems] == ["AS-S001"]


def test_a_byte_order_mark_is_no_problem(tmp_path: Path, base: str) -> None:
    path = tmp_path / "bom.yaml"
    path.write_text(base, encoding="utf-8-sig")
    assert load_scenario(path).name == "base"


def test_every_code_that_is_used_is_explained() -> None:
    used = {
        code
        for path in PACKAGE.rglob("*.py")
        if path.name != "explain.py"
        for code in re.findall(r"AS-S\d{3}", path.read_text(encoding="utf-8"))
    }
    assert used == set(explain.codes())
    for code in used:
        text = explain.explain(code)
        assert text is not None
        assert len(text.splitlines()[0]) < 80
    assert explain.explain("as-s010") == explain.explain("AS-S010")
    assert explain.explain("AS-S999") is None
