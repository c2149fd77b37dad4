"""Running trials with a look at how far they have come."""

from __future__ import annotations

from collections.abc import Sequence

from anyserve.cli.session import Session
from anyserve.cli.trials.pool import Notebook, Outcome, key_of, run_all
from anyserve.sim.trial import Trial


def follow(
    session: Session, trials: Sequence[Trial], notebook: Notebook, jobs: int
) -> dict[Trial, Outcome]:
    """Run the trials; a bar shows it on a terminal. What was run before is not run again.

    Raises:
        AnyServeError: a trial cannot be run.
    """
    diagnostics = session.diagnostics
    known = sum(notebook.get(trial) is not None for trial in trials)
    if known:
        diagnostics.say(f"{known} of {len(trials)} runs are known already")
    by_key = {key_of(trial): trial for trial in trials}
    found: dict[Trial, Outcome] = {}
    outcomes = run_all(trials, notebook, jobs)
    if not diagnostics.terminal.lively(diagnostics.stream):
        for outcome in outcomes:
            found[by_key[outcome.key]] = outcome
        return found
    from rich.progress import Progress  # noqa: PLC0415 - only where it is drawn

    console = diagnostics.terminal.console(diagnostics.stream)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("simulating", total=len(trials))
        for outcome in outcomes:
            found[by_key[outcome.key]] = outcome
            bar.advance(task)
    return found
