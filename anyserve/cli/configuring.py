"""`anyserve config`."""

from __future__ import annotations

from typing import Final

from anyserve.cli.session import Session
from anyserve.cli.settings import config_paths

SCHEMA: Final = "anyserve.config/1"


def show_settings(session: Session, *, origin: bool, as_json: bool) -> None:
    """All settings; with `origin` where each comes from and what it overrode."""
    resolved = session.settings.all()
    if as_json:
        entries = {
            one.setting.name: {
                "value": one.value,
                "origin": one.origin,
                "overrode": [{"origin": at, "value": value} for at, value in one.overrode],
                "variable": one.setting.variable,
                "help": one.setting.help,
            }
            for one in resolved
        }
        session.output.json({"schema": SCHEMA, "settings": entries})
        return
    for one in resolved:
        line = f"{one.setting.name:<14} {_show(one.value):<10}"
        if origin:
            line += f" from {one.origin}"
            line += "".join(f", over {_show(value)} from {at}" for at, value in one.overrode)
        session.output.line(line.rstrip())


def show_paths(session: Session, *, as_json: bool) -> None:
    """The files that are read, strongest first, whether they are there or not."""
    paths = config_paths(session.environ, session.cwd)
    if as_json:
        entries = [{"path": str(path), "exists": path.is_file()} for path in paths]
        session.output.json({"schema": SCHEMA, "files": entries})
        return
    for path in paths:
        there = "" if path.is_file() else "   (not there)"
        session.output.line(f"{path}{there}")


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "–" if value is None else str(value)  # noqa: RUF001 - means unset
