"""What `anyserve up` was asked for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """Flags and settings together."""

    scenario: Path
    ui: str = "auto"
    seed: int = 0
    dry_run: bool = False
    runs: Path = Path("runs")
    duration: str | None = None
    keep: bool = False
    entry: str | None = None
    overrides: tuple[str, ...] = ()
    engine: str | None = None
    record_text: bool = False
    check_memory: bool = True
    as_json: bool = False
    reload: bool = False
    traffic: bool = True
    """Whether the scenario's traffic is played; without it the cluster serves until stopped."""

    def command_line(self) -> str:
        """The command that does the same again, wherever settings come from."""
        words = ["anyserve", "up", str(self.scenario), "--seed", str(self.seed)]
        for flag, value in (
            ("--duration", self.duration),
            ("--entry", self.entry),
            ("--engine", self.engine),
        ):
            if value is not None:
                words += [flag, value]
        for override in self.overrides:
            words += ["--set", override]
        if not self.traffic:
            words.append("--no-traffic")
        if self.record_text:
            words.append("--record-text")
        return shlex.join(words)
