"""A scheduler whose inputs are recorded, so that its decisions can be made again elsewhere.

Set ANYSERVE_RECORD_INPUTS=1 for the run; `scheduler-inputs.jsonl` in its directory is what
`anyserve.core.scheduler.inputs_log` reads. It holds prompts, as the messages do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from anyserve.core.effects import Effect
from anyserve.core.scheduler import Scheduler, SchedulerInput
from anyserve.core.scheduler.inputs_log import record_of, start_record

RECORD_ENV: Final = "ANYSERVE_RECORD_INPUTS"
INPUTS: Final = "scheduler-inputs.jsonl"


class RecordedScheduler:
    """Writes down each input before the scheduler gets it."""

    def __init__(self, scheduler: Scheduler, path: Path, boot: str) -> None:
        self._scheduler = scheduler
        self._boot = boot
        self._file = path.open("ab")
        self._encode = msgspec.json.Encoder().encode

    def start(self, now: int, *, seen_epoch: int) -> list[Effect]:
        """See `Scheduler`."""
        self._write(start_record(now, seen_epoch, self._boot))
        return self._scheduler.start(now, seen_epoch=seen_epoch)

    def handle(self, now: int, message: SchedulerInput) -> list[Effect]:
        """See `Scheduler`."""
        self._write(record_of(now, message))
        return self._scheduler.handle(now, message)

    def _write(self, record: msgspec.Struct) -> None:
        self._file.write(self._encode(record) + b"\n")

    def close(self) -> None:
        """Write what waits; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def recorded(
    scheduler: Scheduler, run_dir: Path, boot: str, environ: Mapping[str, str] = os.environ
) -> RecordedScheduler | None:
    """The scheduler with a record of its inputs, where the environment asks for one."""
    if environ.get(RECORD_ENV, "0") in {"", "0"}:
        return None
    return RecordedScheduler(scheduler, run_dir / INPUTS, boot)
