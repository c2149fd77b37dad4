"""`anyserve explain`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

from anyserve.cli.explanations import ERRORS, INGRESS, OUTCOMES
from anyserve.cli.session import Session
from anyserve.errors import UsageError
from anyserve.workload import explain as scenario_codes

SCHEMA: Final = "anyserve.explain/1"


def show_explanation(session: Session, code: str | None, *, as_json: bool) -> None:
    """Print the long text of a code, or the list of all codes.

    Raises:
        UsageError: there is no such code.
    """
    if code is None:
        _list(session, as_json=as_json)
        return
    text = explanation(code)
    if text is None:
        close = get_close_matches(code.lower(), [one.lower() for one in all_codes()], n=1)
        hint = f"did you mean {close[0]}?" if close else "anyserve explain lists all codes"
        raise UsageError(f"there is no code '{code}'", code="unknown_code", hint=hint)
    if as_json:
        session.output.json({"schema": SCHEMA, "code": code, "text": text})
    else:
        session.output.line(text)


def explanation(code: str) -> str | None:
    """The long text of a code; None where there is no such code."""
    name = code.strip().lower()
    texts = {**ERRORS, **INGRESS, **OUTCOMES}
    return scenario_codes.explain(code) or texts.get(name)


def all_codes() -> list[str]:
    """Every code that can be explained."""
    return [*scenario_codes.codes(), *sorted({*OUTCOMES, *INGRESS, *ERRORS})]


def _list(session: Session, *, as_json: bool) -> None:
    texts = {code: (explanation(code) or "").split("\n", 1)[0] for code in all_codes()}
    if as_json:
        session.output.json({"schema": SCHEMA, "codes": texts})
        return
    for code, text in texts.items():
        session.output.line(f"{code:<26} {text}")
