"""The first pass: does the data have the shape of a scenario? pydantic's errors in our words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pydantic import ValidationError

from anyserve.workload.fields import keys_at
from anyserve.workload.problems import Finding, dotted, nearest
from anyserve.workload.schema import ScenarioFile
from anyserve.workload.yaml_nodes import Loc

_KEY: Final = "[key]"
_MAX_SHOWN: Final = 40

NOT_YET: Final = {
    "hosts": "a model of the hosts is not available yet",
}
"""Keys that people will look for, and that a later version of the format gets."""
_NOT_YET_UNDER: Final = {("cluster",)}

_TYPE_NAMES: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "list_type": "a list",
}
_BOUNDS: Final = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_PATTERN_RULES: Final = (
    ("{n}", "a pattern of ids, lower case letters, digits and '-', that holds {n}"),
    ("{1,32}", "an id: lower case letters, digits and '-', at most 32"),
    ("^mqtts?", "a broker's URL: mqtt://HOST:PORT or mqtts://HOST:PORT"),
    ("", "a capability: lower case words joined by dots, such as decode.heavy"),
)
_STAND_IN_CLUSTER: Final = {
    "capabilities": {"stand.in": {}},
    "replicas": {"stand-in": {"capabilities": ["stand.in"], "engine": {"kind": "echo"}}},
}
_STAND_IN_TRAFFIC: Final = {
    "phases": [{"name": "stand-in", "duration": "1s"}],
    "streams": {"stand-in": {"capability": "stand.in", "rate": 1, "prompt_tokens": 1}},
}
_LENGTH_HINT: Final = (
    "write 128, {uniform: {min: 64, max: 256}} or {lognormal: {median: 128, sigma: 0.6, max: 512}}"
)


def check_shape(data: Any) -> tuple[ScenarioFile | None, list[Finding]]:
    """The file as models, and what is wrong with its shape.

    Where something is wrong, the models are those of the file without the wrong parts, so that the
    second pass can still find more; None where nothing is left to look at.
    """
    if not isinstance(data, dict):
        wanted = "version: 1, name, cluster and traffic"
        return None, [Finding((), "AS-S006", "a scenario is a mapping", f"it holds {wanted}")]
    try:
        return ScenarioFile.model_validate(data), []
    except ValidationError as error:
        details = error.errors(include_url=False)
        findings = [_finding(data, detail) for detail in details]
        return _without(data, [_real(data, d["loc"])[0] for d in details]), _distinct(findings)


def _distinct(findings: Iterable[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))


def _real(data: Any, loc: Iterable[Any]) -> tuple[Loc, bool]:
    """`loc` without what pydantic puts in (union tags), and whether it is about a key."""
    way: list[str | int] = []
    at_key = False
    parts = list(loc)
    for index, part in enumerate(parts):
        if part == _KEY:
            at_key = True
        elif _has(data, part):
            way.append(part)
            data = data[part]
        elif isinstance(data, list) and part in data:  # a list that stands for a mapping
            way.append(data.index(part))
            data = None
        elif index == len(parts) - 1 and isinstance(data, dict):  # a key that is missing
            way.append(part)
    return tuple(way), at_key


def _has(data: Any, part: Any) -> bool:
    if isinstance(data, list):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, dict) and part in data


def _value_at(data: Any, loc: Loc) -> Any:
    for part in loc:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _finding(data: Any, detail: Any) -> Finding:
    loc, at_key = _real(data, detail["loc"])
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(loc)
    if kind == "missing":
        return _missing(loc)
    if loc == ("version",):
        return Finding(loc, "AS-S009", "only version 1 exists", "write `version: 1`")
    value = detail["input"] if at_key else _value_at(data, loc)
    code, message, hint = _worded(kind, context, detail["msg"], value)
    return Finding(loc, code, f"{_last(loc)} {message}".strip(), hint, at_key=at_key)


def _unknown_key(loc: Loc) -> Finding:
    key = str(loc[-1]) if loc else ""
    parent = loc[:-1]
    if key in NOT_YET and parent in _NOT_YET_UNDER:
        return Finding(loc, "AS-S018", NOT_YET[key], "see docs/scenarios.md", at_key=True)
    hint = nearest(key, keys_at(parent))
    where = f" in {dotted(parent)}" if parent else ""
    return Finding(loc, "AS-S010", f"unknown key '{_short(key)}'{where}", hint, at_key=True)


def _missing(loc: Loc) -> Finding:
    parent = loc[:-1]
    where = f" in {dotted(parent)}" if parent else ""
    return Finding(parent, "AS-S011", f"'{loc[-1]}' is missing{where}", at_key=True)


def _worded(kind: str, context: dict[str, Any], said: str, value: Any) -> tuple[str, str, str]:
    """Code, message (what follows the key's name) and hint of one of pydantic's errors."""
    code, hint = "AS-S013", ""
    not_this = f", not {describe(value)}"
    if kind.startswith("AS-S"):
        code, message, hint = kind, said, str(context.get("hint", ""))
    elif kind in _TYPE_NAMES:
        code, message = "AS-S012", f"must be {_TYPE_NAMES[kind]}{not_this}"
        hint = "put it in quotes" if kind == "string_type" and _is_scalar(value) else ""
    elif kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        message = f"must be {words} {context[name]}{not_this}"
    elif kind == "literal_error":
        code, message = "AS-S016", f"must be {context['expected']}{not_this}"
        hint = _nearest_choice(value, context["expected"])
    elif kind == "string_pattern_mismatch":
        rule = next(rule for part, rule in _PATTERN_RULES if part in context["pattern"])
        code, message = "AS-S015", f"must be {rule}{not_this}"
    elif kind == "length_kind":
        code, message, hint = "AS-S012", f"must be a length in tokens{not_this}", _LENGTH_HINT
    elif kind in {"too_short", "string_too_short"}:
        message = "must not be empty"
    else:
        message = f"is not valid: {said[0].lower()}{said[1:]}"
    return code, message, hint


def _nearest_choice(value: Any, expected: str) -> str:
    choices = [choice.strip("' ") for choice in expected.replace(" or ", ", ").split(",")]
    return nearest(value, choices) if isinstance(value, str) else ""


def _last(loc: Loc) -> str:
    return f"'{_short(str(loc[-1]))}'" if loc and isinstance(loc[-1], str) else dotted(loc)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float)


def _short(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def describe(value: Any) -> str:
    """A value as a message names it."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"'{_short(value)}'" if isinstance(value, str) else str(value)


def _without(data: dict[str, Any], wrong: list[Loc]) -> ScenarioFile | None:
    """The file without its wrong parts, as far as that is still a scenario."""
    for _ in range(4):  # a part that loses something needed goes in the next round
        data = _completed(_pruned(data, (), {loc for loc in wrong if loc}))
        try:
            return ScenarioFile.model_validate(data)
        except ValidationError as error:
            wrong = []
            for detail in error.errors(include_url=False):
                loc, _at_key = _real(data, detail["loc"])
                wrong.append(loc[:-1] if detail["type"] == "missing" else loc)
    return None


def _completed(data: dict[str, Any]) -> dict[str, Any]:
    """With something in every place that must not be empty; see `cross_check` for what it is."""
    cluster, traffic = data.get("cluster"), data.get("traffic")
    return data | {
        "version": 1,
        "name": "stand-in",
        "cluster": _filled(cluster, _STAND_IN_CLUSTER),
        "traffic": _filled(traffic, _STAND_IN_TRAFFIC),
    }


def _filled(section: Any, stand_in: dict[str, Any]) -> dict[str, Any]:
    known = section if isinstance(section, dict) else {}
    return known | {name: known.get(name) or value for name, value in stand_in.items()}


def _pruned(value: Any, loc: Loc, wrong: set[Loc]) -> Any:
    if isinstance(value, dict):
        kept = ((key, (*loc, key)) for key in value)
        return {k: _pruned(value[k], way, wrong) for k, way in kept if way not in wrong}
    if isinstance(value, list):
        places = enumerate(value)
        return [_pruned(v, (*loc, i), wrong) for i, v in places if (*loc, i) not in wrong]
    return value
