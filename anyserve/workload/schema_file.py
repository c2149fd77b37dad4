"""The JSON Schema of scenario files, for editors: `python -m anyserve.workload.schema_file`."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

from anyserve.workload.schema import ScenarioFile, Section, format_duration
from anyserve.workload.schema.types import DURATION_PATTERN, SIZE_PATTERN, format_size

SCHEMA_PATH: Final = "scenarios/schema/scenario.v1.json"
MODELINE: Final = "# yaml-language-server: $schema=./schema/scenario.v1.json"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema_data() -> dict[str, Any]:
    """The JSON Schema as data."""
    schema = ScenarioFile.model_json_schema(by_alias=True)
    parts = {ScenarioFile.__name__: schema, **schema["$defs"]}
    for model in _all_models(Section):
        properties = parts[model.__name__]["properties"] if model.__name__ in parts else {}
        for key, text in key_texts(model).items():
            if key in properties:
                properties[key]["description"] = text
    return {"$schema": _DIALECT, "title": "AnyServe scenario, version 1", **_tidy(schema)}


def schema_text() -> str:
    """The JSON Schema as it is committed: same text for the same models."""
    return json.dumps(schema_data(), indent=2, ensure_ascii=False) + "\n"


def key_texts(model: type[Section]) -> dict[str, str]:
    """What the source says under each field of a model, by the key of the file.

    pydantic can read these itself, but does so whenever the models are imported, which then takes
    twice as long.
    """
    texts: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, Section):
            texts |= dict(_field_texts(base))
    fields = model.model_fields
    return {fields[name].alias or name: text for name, text in texts.items() if name in fields}


def _field_texts(model: type[Section]) -> Iterator[tuple[str, str]]:
    (definition,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in pairwise(definition.body):
        text = below.value if isinstance(below, ast.Expr) else None
        if not isinstance(text, ast.Constant) or not isinstance(text.value, str):
            continue
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            yield field.target.id, text.value


def _all_models(base: type[Section]) -> Iterator[type[Section]]:
    for model in base.__subclasses__():
        yield model
        yield from _all_models(model)


def _tidy(node: Any, *, names: bool = False) -> Any:
    """Without titles that only repeat a key, durations as they are written, prose in one line.

    `names`: the keys of this mapping are names of the file, not words of JSON Schema.
    """
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {
        key: _tidy(value, names=key in {"properties", "$defs"} and not names)
        for key, value in node.items()
        if names or key != "title"
    }
    if names:
        return kept
    if isinstance(kept.get("description"), str):
        kept["description"] = " ".join(kept["description"].split())
    if kept.get("pattern") == DURATION_PATTERN and isinstance(kept.get("default"), int):
        kept["default"] = format_duration(kept["default"])
    if kept.get("pattern") == SIZE_PATTERN and isinstance(kept.get("default"), int):
        kept["default"] = format_size(kept["default"])
    return kept


def main() -> None:
    """Write the schema to standard output."""
    sys.stdout.write(schema_text())


if __name__ == "__main__":
    main()
