"""Running trials on several cores, and remembering what they came to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec

from anyserve.compiled.use import switch_on
from anyserve.errors import UsageError
from anyserve.sim.trial import Trial, run_trial


class Outcome(msgspec.Struct, frozen=True):
    """A trial that was run: what identifies it, and its summary."""

    key: str
    overrides: tuple[str, ...]
    seed: int
    summary: dict[str, Any]


class Notebook:
    """Outcomes on disk, one a line: what stands there need not be run again."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Outcome] = {}
        if path is not None and path.exists():
            self._read(path)

    def get(self, trial: Trial) -> Outcome | None:
        """What this trial came to, if it was run before."""
        return self._known.get(key_of(trial))

    def add(self, trial: Trial, summary: dict[str, Any]) -> Outcome:
        """Note what a trial came to."""
        outcome = Outcome(key_of(trial), trial.overrides, trial.seed, summary)
        self._known[outcome.key] = outcome
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(outcome) + b"\n")
        return outcome

    def _read(self, path: Path) -> None:
        for line in path.read_bytes().splitlines():
            try:
                outcome = msgspec.json.decode(line, type=Outcome)
            except msgspec.MsgspecError:
                continue  # the last line of a sweep that was interrupted
            self._known[outcome.key] = outcome


def key_of(trial: Trial) -> str:
    """Identifies a trial by all that its summary depends on, the scenario's text included.

    Raises:
        UsageError: the scenario cannot be read.
    """
    try:
        text = Path(trial.scenario).read_bytes()
    except OSError as error:
        message = f"cannot read {trial.scenario}: {error.strerror}"
        raise UsageError(message, code="scenario_missing") from None
    parts = (text, repr((trial.overrides, trial.seed, trial.duration_ns)).encode())
    return hashlib.blake2b(b"\x00".join(parts), digest_size=12).hexdigest()


def run_all(trials: Sequence[Trial], notebook: Notebook, jobs: int) -> Iterator[Outcome]:
    """Run what is not known yet, on so many processes; outcomes as they come, known ones first.

    Raises:
        AnyServeError: a trial cannot be run.
    """
    todo = []
    for trial in trials:
        known = notebook.get(trial)
        if known is None:
            todo.append(trial)
        else:
            yield known
    if jobs <= 1 or len(todo) <= 1:
        for trial in todo:
            yield notebook.add(trial, run_trial(trial))
        return
    yield from _in_parallel(todo, notebook, jobs)


def _in_parallel(todo: Sequence[Trial], notebook: Notebook, jobs: int) -> Iterator[Outcome]:
    # Fresh interpreters: a forked one would have our threads' locks and our half-drawn progress.
    processes, context = min(jobs, len(todo)), get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=switch_on) as pool:
        running: dict[Future[dict[str, Any]], Trial] = {
            pool.submit(run_trial, trial): trial for trial in todo
        }
        try:
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield notebook.add(running.pop(future), future.result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
