"""What `anyserve sim` was asked for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOptions:
    """Flags and settings together."""

    scenario: Path
    ui: str = "plain"
    seed: int = 0
    runs: Path = Path("runs")
    duration: str | None = None
    entry: str | None = None
    overrides: tuple[str, ...] = ()
    check: bool = False
    exact: bool = False
    sample: float = 1.0
    from_run: str | None = None
    match_speed: bool | None = None
    """Whether engines are as fast as in that run; None: where they were real."""
    as_json: bool = False

    @property
    def says_progress(self) -> bool:
        """Whether long work says how far it is."""
        return self.ui in {"plain", "tui"}

    def command_line(self) -> str:
        """The command that does the same again, wherever settings come from."""
        what = str(self.scenario) if self.from_run is None else f"--from-run={self.from_run}"
        words = ["anyserve", "sim", what, "--seed", str(self.seed)]
        for flag, value in (("--duration", self.duration), ("--entry", self.entry)):
            if value is not None:
                words += [flag, value]
        for override in self.overrides:
            words += ["--set", override]
        for flag, on in (("--check", self.check), ("--exact", self.exact)):
            if on:
                words.append(flag)
        if self.match_speed is not None:
            words.append("--match-speed" if self.match_speed else "--no-match-speed")
        if self.sample < 1.0:
            words += ["--sample", f"{self.sample:g}"]
        return shlex.join(words)
