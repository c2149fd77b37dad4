"""From a file to a scenario that is known to be valid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from anyserve.workload.checks import cross_check
from anyserve.workload.document import Document, document_of, read_document
from anyserve.workload.overrides import apply_overrides
from anyserve.workload.problems import Finding, Problem, ScenarioInvalid, in_order
from anyserve.workload.schema import ScenarioFile
from anyserve.workload.validate import check_shape


@dataclass(frozen=True, slots=True)
class Scenario:
    """A valid scenario: what the file says, and where it says it."""

    file: ScenarioFile
    document: Document
    path: Path | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return self.file.name

    def to_plain(self) -> dict[str, Any]:
        """Everything it says, defaults and overrides included, as plain data of the same format."""
        return self.file.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_yaml(self) -> str:
        """The same as YAML text, itself a valid scenario file."""
        return yaml.safe_dump(self.to_plain(), sort_keys=False, allow_unicode=True, width=100)


def load_scenario(path: Path | str, overrides: Iterable[str] = ()) -> Scenario:
    """Read and check a scenario file, changed by `PATH=VALUE` overrides.

    Raises:
        ScenarioInvalid: with every problem of the file.
    """
    place = Path(path)
    return _checked(apply_overrides(read_document(place), overrides), place)


def parse_scenario(text: str, *, file: str = "<text>", overrides: Iterable[str] = ()) -> Scenario:
    """The same for a text.

    Raises:
        ScenarioInvalid: with every problem of the text.
    """
    return _checked(apply_overrides(document_of(text, file), overrides), None)


def live_problems(scenario: Scenario) -> list[Problem]:
    """What a live cluster cannot do, though the scenario is valid."""
    if scenario.file.cluster.broker.url is None:
        return []
    findings = [
        Finding(
            ("faults", index, action),
            "AS-S060",
            "the broker of this scenario is somebody else's: it cannot be restarted from here",
            "leave `cluster.broker.url` out to get a broker of its own",
            at_key=True,
        )
        for index, fault in enumerate(scenario.file.faults)
        for action in fault.actions()
        if action == "restart-broker"
    ]
    return in_order(scenario.document.problems(findings))


def _checked(document: Document, path: Path | None) -> Scenario:
    problems = document.yaml_problems()
    if problems and document.data is None:
        raise ScenarioInvalid(problems)
    file, findings = check_shape(document.data)
    if file is not None:
        findings += cross_check(file, document.data, whole=not findings)
    problems += document.problems(findings)
    if problems or file is None:
        raise ScenarioInvalid(problems)
    return Scenario(file, document, path)
