"""Draw the pictures of `docs/tui.md` from a recorded run: SVG by Textual, PNG by resvg.

    python docs/screens/render.py            all of them
    python docs/screens/render.py overview   one

Needs the extra `dev` (resvg-py) and the fonts DejaVu Sans Mono. The run in `mixed/` was recorded
with `anyserve up scenarios/mixed.yaml` on two CPU cores, with four real vLLM engines.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import resvg_py

from anyserve.telemetry.log import merge, read_events
from anyserve.telemetry.recording import record
from anyserve.telemetry.run_plan import read_run_plan
from anyserve.tui.app import AnyServeApp
from anyserve.tui.options import TuiOptions
from anyserve.tui.replay import ReplayFeed

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUN = HERE / "mixed"
FONT = "DejaVu Sans Mono"
FONT_DIRS = ["/usr/share/fonts/truetype/dejavu"]
ZOOM = 1.0


@dataclass(frozen=True)
class Shot:
    """One picture: where the run stands, which keys lead there, how large the terminal is."""

    at_s: float
    keys: tuple[str, ...] = ()
    size: tuple[int, int] = (150, 40)
    theme: str = ""
    color: bool = True


SHOTS = {
    "overview": Shot(33.0),
    "overview-light": Shot(33.0, theme="anyserve-light"),
    "narrow": Shot(33.0, ("3",), size=(80, 24)),
    "no-color": Shot(33.0, size=(130, 34), color=False),
    "trace": Shot(60.0, ("t", "slash", "hops>1 ttft>400ms in>500", "enter", "enter", "z"),
                  size=(150, 34)),
    "replica": Shot(33.0, ("down", "enter"), size=(150, 36)),
    "requests": Shot(33.0, ("t",), size=(130, 30)),
    "capabilities": Shot(60.0, ("c", "down", "down", "down", "down"), size=(130, 26)),
    "help": Shot(33.0, ("question_mark",), size=(110, 40)),
}  # fmt: skip


async def draw(shot: Shot) -> str:
    """The picture as SVG."""
    recording = record(merge([read_events(RUN / "events.jsonl.zst")]))
    facts = {"run_dir": str(RUN.relative_to(ROOT))}
    feed = ReplayFeed(
        recording, read_run_plan(RUN), facts, lambda: 0.0, at_s=shot.at_s, playing=False
    )
    options = TuiOptions(theme=shot.theme, color=shot.color)
    app = AnyServeApp(feed, None, lambda: 0.0, options=options)
    async with app.run_test(size=shot.size) as pilot:
        await pilot.pause()
        for key in shot.keys:
            await pilot.press(*(key if " " in key or ">" in key else (key,)))
            await pilot.pause()
        app.tick()
        await pilot.pause()
        return app.export_screenshot(title="anyserve")


def to_png(svg: str) -> bytes:
    """The picture as PNG, in a font whose boxes and blocks meet."""
    return bytes(
        resvg_py.svg_to_bytes(svg_string=svg, font_dirs=FONT_DIRS, monospace_family=FONT, zoom=ZOOM)
    )


def stable(svg: str) -> str:
    """Without what differs from run to run, and in the font that PNGs are drawn with."""
    svg = re.sub(r"terminal-\d+", "terminal", svg)
    return svg.replace("Fira Code", FONT)


def main(names: list[str]) -> None:
    """Draw these pictures."""
    os.chdir(ROOT)  # a picture names no folder of this machine
    for name in names or list(SHOTS):
        svg = stable(asyncio.run(draw(SHOTS[name])))
        (HERE / f"{name}.png").write_bytes(to_png(svg))
        print(HERE / f"{name}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
