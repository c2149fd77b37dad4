"""The steps of a start, as lines; on a terminal a spinner says what is still going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyserve.cli.diagnostics import Diagnostics
from anyserve.runtime.supervisor.progress import Ready, Step, StepState
from anyserve.telemetry.text import clean

if TYPE_CHECKING:
    from rich.status import Status


class Steps:
    """Writes to standard error. `quiet`: only what nobody may miss."""

    def __init__(self, diagnostics: Diagnostics, *, quiet: bool) -> None:
        self._diagnostics = diagnostics
        self._quiet = quiet
        self._open: dict[str, str] = {}
        self._spinner: Status | None = None
        self._held: list[str] | None = None
        if not quiet and diagnostics.terminal.lively(diagnostics.stream):
            self._start_spinner()

    def _start_spinner(self) -> None:
        from rich.status import Status  # noqa: PLC0415 - only where it can spin
        from rich.text import Text  # noqa: PLC0415

        console = self._diagnostics.terminal.console(self._diagnostics.stream)
        self._spinner = Status("starting", console=console)
        self._spinner.start()
        self._diagnostics.write_above(
            lambda line: console.print(Text.from_ansi(line), soft_wrap=True)
        )

    def hold(self) -> None:
        """A screen has the terminal: steps are shown there, notices wait for its end."""
        self.close()
        self._held = []

    def release(self) -> None:
        """The terminal is ours again."""
        held, self._held = self._held or [], None
        for text in held:
            self.notice(text)

    def step(self, step: Step) -> None:
        """A step began, went on, or ended."""
        if self._quiet or self._held is not None:
            return
        if step.state in {StepState.STARTED, StepState.PROGRESS}:
            self._open[step.name] = step.detail
        else:
            self._open.pop(step.name, None)
            ok = step.state is StepState.OK
            mark = self._diagnostics.terminal.mark(ok=ok)
            detail = f"  {clean(step.detail)}" if step.detail else ""
            self._diagnostics.say(f"{step.t:6.1f} s  {mark} {step.name}{detail}")
        self._spin()

    def ready(self, ready: Ready) -> None:
        """All replicas are ready."""
        if not self._quiet and self._held is None:
            self._diagnostics.say(f"{ready.t:6.1f} s  ready; watch it with: anyserve watch")
        self._open.clear()
        self.close()

    def notice(self, text: str) -> None:
        """Something that may not be missed."""
        if self._held is not None:
            self._held.append(text)
            return
        self._diagnostics.say(f"! {clean(text)}")

    def closing(self) -> None:
        """The traffic is over."""
        if not self._quiet and self._held is None:
            self._diagnostics.say("traffic ended, stopping the cluster")

    def close(self) -> None:
        """No more spinning; a second call does nothing."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
            self._diagnostics.write_above(None)

    def _spin(self) -> None:
        if self._spinner is None:
            return
        parts = [f"{name} ({clean(at)})" if at else name for name, at in self._open.items()]
        self._spinner.update(f"starting {', '.join(parts)}" if parts else "starting")
