"""A scenario file as it was read: plain data, and where each part of it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from anyserve.workload.problems import Finding, Problem, ScenarioInvalid, dotted
from anyserve.workload.yaml_nodes import Loc, Mark, YamlFault, YamlTree, parse_yaml

MAX_BYTES: Final = 1 << 20
_LINE_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # as YAML counts lines


@dataclass(slots=True)
class Document:
    """One scenario file. `overridden` maps what `--set` changed to the words that changed it."""

    file: str
    text: str
    tree: YamlTree
    overridden: dict[Loc, str] = field(default_factory=dict)

    @property
    def data(self) -> Any:
        """The plain data."""
        return self.tree.data

    def problems(self, findings: Iterable[Finding]) -> list[Problem]:
        """The findings with their places."""
        return [self._placed(finding) for finding in findings]

    def yaml_problems(self) -> list[Problem]:
        """What is wrong with the YAML itself."""
        return [self._fault(fault) for fault in self.tree.faults]

    def line_of(self, loc: Loc) -> int | None:
        """The line a value stands on; None where it comes from `--set`."""
        return None if self._override_of(loc) else self._mark(loc, at_key=False).line

    def _placed(self, finding: Finding) -> Problem:
        loc = self._existing(finding.loc)
        override = self._override_of(loc)
        if override is not None:
            return Problem(
                finding.code,
                finding.message,
                finding.hint,
                file=f"--set {override}",
                path=dotted(finding.loc),
            )
        is_whole = len(loc) == len(finding.loc)
        mark = self._mark(loc, at_key=finding.at_key or not is_whole)
        return self._at(mark, finding.code, finding.message, finding.hint, dotted(finding.loc))

    def _fault(self, fault: YamlFault) -> Problem:
        if fault.mark is None:
            return Problem(fault.code, fault.message, fault.hint, file=self.file)
        return self._at(fault.mark, fault.code, fault.message, fault.hint, "")

    def _at(self, mark: Mark, code: str, message: str, hint: str, path: str) -> Problem:
        lines = _LINE_BREAK.split(self.text)
        while len(lines) > 1 and not lines[-1].strip():
            lines.pop()
        if mark.line > len(lines):  # the end of the file: shown after the last thing in it
            mark = Mark(len(lines), len(lines[-1]) + 1)
        line = lines[mark.line - 1]
        return Problem(
            code, message, hint, self.file, mark.line, mark.column, mark.width, line, path
        )

    def _existing(self, loc: Loc) -> Loc:
        """The longest beginning of `loc` that the file has.

        A name in a list that is short for a mapping is found by its place there.
        """
        way: Loc = ()
        value = self.data
        for part in loc:
            if isinstance(value, list) and part in value:
                part = value.index(part)  # noqa: PLW2901 - the place stands for the name
            way = (*way, part)
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                break
        while way and way not in self.tree.values and way not in self.overridden:
            way = way[:-1]
        return way

    def _override_of(self, loc: Loc) -> str | None:
        for end in range(len(loc), 0, -1):
            words = self.overridden.get(loc[:end])
            if words is not None:
                return words
        return None

    def _mark(self, loc: Loc, *, at_key: bool) -> Mark:
        loc = self._existing(loc)
        if at_key and loc in self.tree.keys:
            return self.tree.keys[loc]
        mark = self.tree.values.get(loc, Mark(1, 1))
        return mark if loc else Mark(mark.line, mark.column)


def read_document(path: Path) -> Document:
    """Read a scenario file.

    Raises:
        ScenarioInvalid: it cannot be read or is not text.
    """
    file = str(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        hint = "`anyserve scenario validate FILE` takes the path of a YAML file"
        raise ScenarioInvalid(
            [Problem("AS-S001", f"cannot read the file: {reason}", hint, file)]
        ) from None
    if len(raw) > MAX_BYTES:
        message = f"{len(raw):,} bytes are more than a scenario's {MAX_BYTES:,}"
        raise ScenarioInvalid([Problem("AS-S001", message, "", file)])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8 text: byte {raw[error.start]:#04x} on line {line}"
        raise ScenarioInvalid([Problem("AS-S001", message, "save it as UTF-8", file)]) from None
    return document_of(text, file)


def document_of(text: str, file: str = "<text>") -> Document:
    """The document that a text is."""
    return Document(file, text, parse_yaml(text))
