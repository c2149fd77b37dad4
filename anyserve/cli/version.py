"""`anyserve --version`."""

from __future__ import annotations

import platform

from anyserve.cli.session import Session
from anyserve.runtime.engines.detect import detect
from anyserve.version import __version__

SCHEMA = "anyserve.version/1"


def show_version(session: Session, *, as_json: bool) -> None:
    """Print our version; as JSON with what it stands on."""
    if not as_json:
        session.output.line(f"anyserve {__version__}")
        return
    found = detect()
    session.output.json(
        {
            "schema": SCHEMA,
            "anyserve": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "vllm": {"build": found.build.value, "version": found.version or None},
            "engine": found.engine.value,
        }
    )
