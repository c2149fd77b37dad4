"""Settings: flag > ANYSERVE_* > ./anyserve.toml > pyproject.toml [tool.anyserve] > user config.

Flags belong to the commands; this module knows everything below them and remembers where each
value came from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyserve.errors import UsageError

Value = str | bool | int | None


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set. `kind` reads its text from the environment."""

    name: str
    default: Value
    kind: type
    help: str

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"ANYSERVE_{self.name.upper()}"


SETTINGS: Final = (
    Setting("runs", "runs", str, "directory of run directories"),
    Setting("ui", "auto", str, "what `anyserve up` shows: auto, tui, plain, json, none"),
    Setting("seed", 0, int, "seed of a run"),
    Setting("color", "auto", str, "auto, always, never"),
    Setting("ascii", default=False, kind=bool, help="write nothing but ASCII"),
    Setting("cluster", None, str, "cluster that commands talk to; default the newest"),
    Setting("record_text", default=False, kind=bool, help="record prompt and output text"),
    Setting("memory_check", default=True, kind=bool, help="compare memory before the start"),
)
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Source:
    """One place with values: an environment, or a file."""

    origin: str
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A setting's value, where it came from, and what it overrode there."""

    setting: Setting
    value: Value
    origin: str
    overrode: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. `sources`: strongest first."""

    sources: tuple[Source, ...] = ()

    def resolve(self, name: str) -> Resolved:
        """A setting with its origin."""
        setting = _BY_NAME[name]
        found = [(one.origin, one.values[name]) for one in self.sources if name in one.values]
        found.append((DEFAULT, setting.default))
        return Resolved(setting, found[0][1], found[0][0], tuple(found[1:]))

    def value(self, name: str) -> Value:
        """A setting's value."""
        return self.resolve(name).value

    def all(self) -> list[Resolved]:
        """Every setting."""
        return [self.resolve(setting.name) for setting in SETTINGS]


def user_config_path(environ: Mapping[str, str]) -> Path:
    """The user's own file; XDG_CONFIG_HOME counts only if it is absolute."""
    base = environ.get("XDG_CONFIG_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".config"
    return root / "anyserve" / "config.toml"


def config_paths(environ: Mapping[str, str], cwd: Path) -> list[Path]:
    """The files that are looked for, strongest first."""
    return [cwd / "anyserve.toml", cwd / "pyproject.toml", user_config_path(environ)]


def load_settings(environ: Mapping[str, str] = os.environ, cwd: Path | None = None) -> Settings:
    """Read environment and files.

    Raises:
        UsageError: a value has the wrong type, a file is no TOML, or names no setting of ours.
    """
    sources = [Source("environment", _from_environment(environ))]
    for path in config_paths(environ, Path.cwd() if cwd is None else cwd):
        values = _from_file(path)
        if values:
            sources.append(Source(str(path), values))
    return Settings(tuple(source for source in sources if source.values))


def _from_environment(environ: Mapping[str, str]) -> dict[str, Value]:
    return {
        setting.name: _READERS[setting.kind](environ[setting.variable], setting.variable)
        for setting in SETTINGS
        if setting.variable in environ
    }


def _read_bool(text: str, name: str) -> bool:
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off", ""}:
        return False
    raise _wrong(name, text, "write 1 or 0")


def _read_int(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _wrong(name, text, "write a whole number") from None


def _read_str(text: str, _name: str) -> str:
    return text


_READERS: Final[Mapping[type, Callable[[str, str], Value]]] = {
    bool: _read_bool,
    int: _read_int,
    str: _read_str,
}


def _from_file(path: Path) -> dict[str, Value]:
    try:
        raw = path.read_bytes()
    except OSError:  # most of them are not there
        return {}
    import tomllib  # noqa: PLC0415 - most calls read no file

    try:
        table = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        if path.name == "pyproject.toml":  # somebody else's to mend
            return {}
        raise UsageError(f"{path} is not TOML: {error}", code="settings_file") from None
    if path.name == "pyproject.toml":
        table = table.get("tool", {}).get("anyserve", {})
    return dict(_checked(table, path))


def _checked(table: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Value]]:
    for key, value in table.items():
        name = key.replace("-", "_")
        setting = _BY_NAME.get(name)
        if setting is None:
            raise _unknown(key, path)
        if not isinstance(value, str | bool | int) or type(value) is not setting.kind:
            raise _wrong(f"{path}: {key}", value, f"it takes a {setting.kind.__name__}")
        yield name, value


def _unknown(key: str, path: Path) -> UsageError:
    from difflib import get_close_matches  # noqa: PLC0415 - for this error only

    close = get_close_matches(key.replace("-", "_"), _BY_NAME, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(_BY_NAME)}"
    return UsageError(f"{path}: there is no setting '{key}'", code="unknown_setting", hint=hint)


def _wrong(name: str, value: object, hint: str) -> UsageError:
    return UsageError(f"{name}: {value!r} does not fit", code="bad_setting", hint=hint)
