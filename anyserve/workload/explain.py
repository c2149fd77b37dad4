"""The long text of each problem's code, for `anyserve explain AS-S010`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_TEXTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "AS-S001": """The file cannot be read.

It is not there, may not be read, is larger than a scenario can be (1 MiB), or is not UTF-8 text.
Check the path and the file's permissions; save the file as UTF-8.""",
        "AS-S002": """The file is not YAML.

The place shown is where the parser gave up; what is wrong often stands a little before it: a
bracket that is not closed, a line that is indented with tabs, a text with ': ' in it that needs
quotes.""",
        "AS-S003": """A key of a mapping stands twice, or is not plain text.

Most YAML readers silently keep the last of two equal keys, and the other part of the file would be
lost. Remove one, or give one another name. `<<` takes a mapping or a list of mappings.""",
        "AS-S004": """The file uses a YAML tag (`!something`).

Tags let a file ask for objects of any kind. Scenario files are plain data: text, numbers, true and
false, lists and mappings. To make a number text, put it in quotes.""",
        "AS-S005": """The file is too deep or too large once aliases are written out.

Aliases (`*name`) may be used, but not so that a small file stands for a huge one, and not within
the value they name.""",
        "AS-S006": """The file holds no mapping.

It is empty, or holds a list or a single value. A scenario begins with `version: 1` and has at least
`name`, `cluster` and `traffic`.""",
        "AS-S009": """The version is missing or unknown.

`version: 1` is the only version of the format. A file that says another one was written for another
release of AnyServe.""",
        "AS-S010": """A key is not known at this place.

Keys that are not known are errors, because a misspelt key would silently mean its default. The hint
names the nearest key that may stand here; `anyserve scenario schema` lists all of them, and editors
that know YAML schemas complete them as you type.""",
        "AS-S011": """A key that is needed is missing.

The place shown is the mapping that lacks it.""",
        "AS-S012": """A value is of the wrong type.

Numbers are written plainly (`4`, `0.5`, `1e3`), text that looks like a number goes in quotes, and
only `true` and `false` are booleans: `yes`, `no`, `on` and `off` are text. `010` is text too.""",
        "AS-S013": """A value is outside of what is possible.

The message says the bound. The shipped maximum of `delegation.limit` is 1: a request is handed up
the ladder at most once.""",
        "AS-S014": """A duration has no unit, or an unknown one.

Write `250ms`, `60s`, `1.5s`, `2m` or `1m30s`. The units are us, ms, s, m and h.""",
        "AS-S015": """A name or an address does not have the right form.

Capabilities are lower case words joined by dots (`decode.heavy`); they say what can be computed,
never on what. Ids of replicas, streams, phases and scenarios have lower case letters, digits and
'-', at most 32: they stand in the broker's topics. A broker is mqtt://HOST:PORT or mqtts://.""",
        "AS-S016": """A value is not one of those that are possible here.""",
        "AS-S017": """A size has no unit, or an unknown one.

Write `512B`, `256KiB`, `64MiB` or `1GiB`.""",
        "AS-S018": """The key is meant for a later version of AnyServe.

It is refused rather than ignored, so that a scenario never seems to do what it does not.""",
        "AS-S020": """A capability is named that `cluster.capabilities` does not declare.

Every capability is declared there once, even if it has nothing to say: `embedding: {}`.""",
        "AS-S021": """A replica is named that does not exist.

Replicas are named by their ids. An entry of `cluster.replicas` with `count: 3` and the name `heavy`
makes heavy-1, heavy-2 and heavy-3; only `entry` takes the name of the group too.""",
        "AS-S022": """The upgrade ladder runs in a circle.

`upgrade` leads from a capability to a stronger one. A request that moves up must never come back to
where it was, so one of the upgrades in the circle has to go.""",
        "AS-S023": """Two replicas would have the same id, or an id cannot be used.

An entry with `count` makes its ids from `id` (default NAME-{n}). `scheduler`, `any` and `broker`
mean something else and name no replica. Ids have at most 32 characters.""",
        "AS-S024": """Nothing serves a stream.

No replica offers the capability that the stream asks for, nor one above it on the ladder, with the
attributes it wants. All of its requests would be rejected.""",
        "AS-S025": """A phase sets the rate of a stream that does not exist.""",
        "AS-S026": """An expectation names a metric that no summary has.

Metrics are dotted paths into summary.json, such as requests.completed, ttft.p95_ms,
delegations.by_edge.decode->decode.heavy, capabilities.decode.ttft.p95_ms or replicas.s1.completed.
docs/scenarios.md lists them. Where --set changes which replicas there are, --set 'expect=[]' leaves
the expectations out.""",
        "AS-S027": """An expectation cannot be read.

It is METRIC OP VALUE with blanks between: `requests.failed == 0`, `ttft.p95_ms < 800`,
`requests.completed == requests.offered`. OP is one of == != < <= > >=; VALUE is a number or another
metric.""",
        "AS-S028": """Even the shortest request of a stream is too long for all replicas.

Prompt plus output tokens are held against max_model_len of the engine, or against limits.max_tokens
of the offer where that is less. All of the stream's requests would be rejected as too_long.""",
        "AS-S029": """Nothing is ever sent.

Every stream has a rate of 0 in every phase. `rate` of a stream is multiplied by `scale` of a phase,
and `rates` of a phase wins over both.""",
        "AS-S030": """A stream might be served by engines that do different things.

Some of the replicas that offer the capability, or one above it, embed and others generate or run a
handler. What a
request gets must not depend on where it is served: use two capabilities.""",
        "AS-S031": """A stream asks for something that its capability does not take.

Requests that generate need `output_tokens`, and embeddings have none. Handlers take a `payload`,
engines take `prompt_tokens`. What a capability does follows from the replicas that offer it: from
their `app`, from `engine.task`, or from what the model is known for.""",
        "AS-S032": """An engine needs a model.

The vllm engine loads one: a built-in name (smollm2-135m, minilm), a local folder or a hub id.
`kind: auto` may mean vllm, so it needs one too.""",
        "AS-S033": """A replica promises more than its engine holds.

`concurrency` must not exceed `max_num_seqs`: requests beyond it would wait inside the engine, where
nobody sees them. `limits.max_tokens` must not exceed `max_model_len`.""",
        "AS-S034": """Lengths do not fit each other.

`min` is above `max`, or the shared prefix is longer than the shortest prompt.""",
        "AS-S035": """A fault is not written as one.

A fault has `at` and exactly one action, and the action one target: `{at: 10s, kill: {worker: s1}}`.
`for` says how long it lasts, for all but kill and the restarts.""",
        "AS-S036": """The routing policy is not known.

Shipped are round-robin, least-loaded, power-of-two, bin-packing and prefix-affinity. Your own
class is named as pkg.mod:Class; it is imported when a run starts, never when a scenario is only
checked.""",
        "AS-S037": """The broker's URL holds a user or a password.

Scenario files are shared and stored with every run. Give credentials by environment or file.""",
        "AS-S038": """A fault comes after the end of the traffic.

It would never happen: faults count from the start of traffic, and the run ends with its
requests.""",
        "AS-S039": """Delegation by overload is on, and nothing counts as overload.

With `delegation.overload: true` an entry replica delegates when it predicts that a request would
wait longer than its capability's `target_wait`. No capability has one.""",
        "AS-S040": """An app is not named as one.

`app` is module:attribute: `reranker:app` is the object `app = anyserve.App()` in reranker.py, which
lies beside the scenario file or is installed. It is imported when a run starts, never when a
scenario is only checked.""",
        "AS-S041": """A replica's app and its engine do not share its capabilities.

An app by its name alone serves all capabilities of its replica, which then has no engine. If both
are there, `app: {name: reranker:app, serves: [rerank]}` says which are the app's; each must stand
among the replica's `capabilities`, and the engine serves the others.""",
        "AS-S042": """How the requests of a stream come is not said, or said twice.

A stream has one of `rate` (open loop: requests per second, whatever becomes of them), `concurrency`
(closed loop: so many users who wait for their answers) and `trace` (a file that says when). `think`
and `requests` go with `concurrency`, `burst` with `arrivals: bursty`, `cv` with `arrivals: gamma`,
`sessions` with a rate.""",
        "AS-S045": """The engine profile is not known.

`engine.profile` is the name of a shipped profile, the path of a file that `anyserve calibrate`
wrote (seen from the scenario file), or your own step-time model as pkg.mod:Class.""",
        "AS-S050": """An override (`--set`) cannot be applied.

It is PATH=VALUE: `cluster.delegation.limit=0`, `cluster.replicas[heavy].count=3`,
`traffic.phases[burst].duration=5s`, `cluster.replicas[*].engine.kind=model`. Names with dots go in
brackets: `cluster.capabilities[decode.heavy].queue_limit=8`.""",
        "AS-S060": """The scenario is valid, but a live cluster cannot do this.

All faults act live, but a broker that the scenario names by its URL is somebody else's:
`restart-broker` needs a broker of the cluster's own. Leave `cluster.broker.url` out.""",
    }
)


def codes() -> list[str]:
    """Every code, in order."""
    return sorted(_TEXTS)


def explain(code: str) -> str | None:
    """The long text of a code; None where there is no such code."""
    return _TEXTS.get(code.strip().upper())
