"""What is wrong with a scenario file: all of it, each with its place, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from anyserve.errors import ScenarioError
from anyserve.workload.yaml_nodes import Loc


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    `file` is the path as it was given, or `--set ...` for an override; `line` and `column` count
    from 1 and are None where the problem has no place. `path` names the value: `cluster.replicas`.
    """

    code: str
    message: str
    hint: str = ""
    file: str = ""
    line: int | None = None
    column: int | None = None
    width: int = 1
    source_line: str = ""
    path: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint or None,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "path": self.path or None,
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem before it has a place in a file: `loc` says what it is about.

    `at_key`: the key itself is wrong, not its value.
    """

    loc: Loc
    code: str
    message: str
    hint: str = ""
    at_key: bool = False


class ScenarioInvalid(ScenarioError):  # noqa: N818 - it says what is so, as users read it
    """The scenario file is not valid; `problems` holds every problem, sorted by line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: list[Problem] = in_order(problems)
        first = self.problems[0]
        place = f"{first.file}:{first.line}: " if first.line is not None else ""
        super().__init__(f"{place}{first.message}", code=first.code, hint=first.hint)


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """By file, line and column; each said once."""
    distinct = dict.fromkeys(problems)
    return sorted(distinct, key=lambda p: (p.file, p.line or 0, p.column or 0, p.code, p.message))


def dotted(loc: Loc) -> str:
    """A way into the file as `--set` takes it: `cluster.capabilities[decode.heavy].reserve`."""
    text = ""
    for part in loc:
        if isinstance(part, int) or "." in part:
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest of `known`, or all of them where few; "" where none."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if 0 < len(names) <= 12:  # noqa: PLR2004 - a longer list is no help
        return f"known: {', '.join(names)}"
    return ""


def render(problems: Sequence[Problem]) -> str:
    """All problems as text: each with its place, the line, a caret and a hint; then the count."""
    blocks = [_block(problem) for problem in problems]
    return "\n\n".join([*blocks, count_line(problems)])


def to_dicts(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """All problems as JSON data."""
    return [problem.to_dict() for problem in problems]


def count_line(problems: Sequence[Problem]) -> str:
    """`3 problems in scenarios/mixed.yaml`."""
    files = ", ".join(dict.fromkeys(problem.file for problem in problems))
    return f"{len(problems)} problem{'' if len(problems) == 1 else 's'} in {files}"


def _block(problem: Problem) -> str:
    lines = [f"error[{problem.code}]: {problem.message}"]
    if problem.line is None:
        lines.append(f"  --> {problem.file}")
    else:
        lines += [f"  --> {problem.file}:{problem.line}:{problem.column}", *_excerpt(problem)]
    if problem.hint:
        lines.append(f"help: {problem.hint}")
    return "\n".join(lines)


def _excerpt(problem: Problem) -> list[str]:
    assert problem.column is not None
    number = str(problem.line)
    gutter = " " * len(number)
    before = problem.source_line[: problem.column - 1]
    # Tabs are kept, so the caret stands under its text however wide a tab is shown.
    indent = "".join("\t" if char == "\t" else " " for char in before)
    room = max(1, len(problem.source_line) - len(before))
    carets = "^" * min(problem.width, room)
    return [
        f"{gutter} |",
        f"{number} | {problem.source_line}",
        f"{gutter} | {indent}{carets}",
    ]
