"""The JSON Schema of scenario files, for editors: `python -m anyserve.workload.schema_file`."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from anyserve.workload.schema import ScenarioFile, format_duration
from anyserve.workload.schema.types import DURATION_PATTERN

SCHEMA_PATH: Final = "scenarios/schema/scenario.v1.json"
MODELINE: Final = "# yaml-language-server: $schema=./schema/scenario.v1.json"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema_data() -> dict[str, Any]:
    """The JSON Schema as data."""
    schema = ScenarioFile.model_json_schema(by_alias=True)
    return {"$schema": _DIALECT, "title": "AnyServe scenario, version 1", **_tidy(schema)}


def schema_text() -> str:
    """The JSON Schema as it is committed: same text for the same models."""
    return json.dumps(schema_data(), indent=2, ensure_ascii=False) + "\n"


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
    if not names and isinstance(kept.get("description"), str):
        kept["description"] = " ".join(kept["description"].split())
    if (
        not names
        and kept.get("pattern") == DURATION_PATTERN
        and isinstance(kept.get("default"), int)
    ):
        kept["default"] = format_duration(kept["default"])
    return kept


def main() -> None:
    """Write the schema to standard output."""
    sys.stdout.write(schema_text())


if __name__ == "__main__":
    main()
