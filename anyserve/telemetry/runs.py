"""Run directories: `runs/<id>/` with what one run was, said and came to.

    scenario.resolved.json   what was run, after defaults and flags
    events.jsonl[.zst]       every event
    summary.json             what it came to
    report.html              the same for people
    logs/                    what its processes wrote

`runs/latest` points at the newest. Ids read `20261123-194501-mixed-7`: when (UTC), which scenario,
which seed.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

import msgspec

from anyserve.errors import StartError, UsageError

LATEST = "latest"
_ID = re.compile(r"\d{8}-\d{6}-[a-z0-9-]+?-\d+(\.\d+)?\Z")
_STAMP = "%Y%m%d-%H%M%S"
_MAX_NAME = 48
_MAX_SAME_SECOND = 1000


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Where the parts of one run lie; the files need not be there yet."""

    path: Path

    @property
    def id(self) -> str:
        """The run's id: the directory's name."""
        return self.path.name

    @property
    def scenario(self) -> Path:
        """The resolved scenario."""
        return self.path / "scenario.resolved.json"

    @property
    def events(self) -> Path:
        """The event log: the compressed one where only that is there."""
        plain = self.path / "events.jsonl"
        compressed = self.path / "events.jsonl.zst"
        return compressed if compressed.exists() and not plain.exists() else plain

    @property
    def summary(self) -> Path:
        """The summary."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The report as one HTML page."""
        return self.path / "report.html"

    @property
    def logs(self) -> Path:
        """The processes' logs."""
        return self.path / "logs"


class RunBrief(msgspec.Struct, frozen=True, kw_only=True):
    """One line about a run. Facts are None where it left no readable summary."""

    id: str
    path: str
    started: str
    """UTC, ISO 8601."""
    scenario: str | None = None
    seed: int | None = None
    kind: str | None = None
    complete: bool | None = None
    ended: str | None = None
    duration_s: float | None = None
    offered: int | None = None
    completed: int | None = None


class _SummaryRequests(msgspec.Struct):
    offered: int | None = None
    completed: int | None = None


class _SummaryHead(msgspec.Struct):
    scenario: str | None = None
    seed: int | None = None
    kind: str | None = None
    complete: bool | None = None
    ended: str | None = None
    duration_s: float | None = None
    requests: _SummaryRequests = msgspec.field(default_factory=_SummaryRequests)


def create_run(root: Path, scenario: str, seed: int, now: datetime) -> RunDirectory:
    """Make a new run directory under `root` and point `latest` at it.

    `now` must know its time zone. Two runs in one second get a `.2`, `.3` ... at their ids.

    Raises:
        StartError: the directory cannot be made.
    """
    base = f"{now.astimezone(UTC).strftime(_STAMP)}-{safe_name(scenario)}-{abs(seed)}"
    for number in range(1, _MAX_SAME_SECOND):
        path = root / (base if number == 1 else f"{base}.{number}")
        try:
            (path / "logs").mkdir(parents=True, exist_ok=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise StartError(
                f"cannot make the run directory {path}: {error.strerror}",
                code="runs_not_writable",
                hint="choose another place with --runs DIR",
            ) from error
        point_latest(root, path.name)
        return RunDirectory(path)
    raise StartError(
        f"{root} already has {_MAX_SAME_SECOND} runs named {base}",
        code="runs_not_writable",
        hint="wait a second",
    )


def point_latest(root: Path, run_id: str) -> None:
    """Let `latest` name this run; a reader sees the old or the new one, never none.

    Where `latest` is not a symlink somebody put it there, and it is left alone.
    """
    latest = root / LATEST
    if latest.exists() and not latest.is_symlink():
        return
    beside = root / f".{LATEST}-{os.getpid()}"
    beside.unlink(missing_ok=True)
    beside.symlink_to(run_id, target_is_directory=True)
    beside.replace(latest)


def safe_name(name: str) -> str:
    """A scenario's name as part of a directory's: lower case, digits and single dashes."""
    stem = Path(name).name.removesuffix(".yaml").removesuffix(".yml")
    words = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    return words[:_MAX_NAME].strip("-") or "run"


def run_ids(root: Path) -> list[str]:
    """The ids of all runs under `root`, oldest first."""
    try:
        entries = list(root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(
        entry.name
        for entry in entries
        if _ID.match(entry.name) and stat.S_ISDIR(entry.lstat().st_mode)
    )


def list_runs(root: Path) -> list[RunBrief]:
    """A line about each run under `root`, oldest first; a broken summary hides no run."""
    return [_brief(root / run_id) for run_id in run_ids(root)]


def open_run(root: Path, name: str | Path = LATEST) -> RunDirectory:
    """The run that `name` means: a path, an id, `latest`, or the beginning of one id only.

    Raises:
        UsageError: there is no such run, or several ids begin so.
    """
    text = str(name)
    ids = run_ids(root)
    if text == LATEST:
        return RunDirectory(_latest(root, ids))
    if text in ids:
        return RunDirectory(root / text)
    if os.sep in text or Path(text).is_dir():
        return _at_path(Path(text))
    matches = [run_id for run_id in ids if run_id.startswith(text)]
    if len(matches) == 1:
        return RunDirectory(root / matches[0])
    if matches:
        raise UsageError(
            f"{len(matches)} runs begin with '{text}'",
            code="ambiguous_run",
            hint=f"write more of it: {', '.join(matches[-3:])}",
        )
    raise UsageError(f"no run '{text}' in {root}", code="unknown_run", hint=_nearest(text, ids))


def _latest(root: Path, ids: list[str]) -> Path:
    latest = root / LATEST
    if latest.is_dir():
        return latest.resolve()
    if ids:
        return root / ids[-1]
    raise UsageError(
        f"no runs in {root} yet",
        code="unknown_run",
        hint="make one with: anyserve up SCENARIO; or name their directory with --runs",
    )


def _at_path(path: Path) -> RunDirectory:
    directory = path.parent if path.is_file() else path
    run = RunDirectory(directory.resolve())
    if run.events.exists() or run.summary.exists():
        return run
    raise UsageError(
        f"{path} is not a run directory",
        code="unknown_run",
        hint="a run directory holds events.jsonl and summary.json",
    )


def _nearest(text: str, ids: list[str]) -> str:
    if not ids:
        return "there are no runs yet: anyserve up SCENARIO"
    containing = [run_id for run_id in ids if text in run_id]
    nearest = containing[-3:] or get_close_matches(text, ids, n=3, cutoff=0.3) or ids[-3:]
    return f"nearest: {', '.join(nearest)}"


def _brief(path: Path) -> RunBrief:
    started = datetime.strptime(path.name[:15], _STAMP).replace(tzinfo=UTC)
    try:
        head = msgspec.json.decode((path / "summary.json").read_bytes(), type=_SummaryHead)
    except (OSError, msgspec.DecodeError):
        head = _SummaryHead()
    return RunBrief(
        id=path.name,
        path=str(path),
        started=started.isoformat(),
        scenario=head.scenario,
        seed=head.seed,
        kind=head.kind,
        complete=head.complete,
        ended=head.ended,
        duration_s=head.duration_s,
        offered=head.requests.offered,
        completed=head.requests.completed,
    )
