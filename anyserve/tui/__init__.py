"""The terminal UI: screens over the reducer's snapshots, wherever the events come from.

`run` shows a source until the person leaves; `run_replay` shows a recorded run. Textual is loaded
when one of them is called, not before.
"""

from __future__ import annotations

from anyserve.tui.options import TuiOptions
from anyserve.tui.start import check_terminal, run, run_async, run_replay

__all__ = ["TuiOptions", "check_terminal", "run", "run_async", "run_replay"]
