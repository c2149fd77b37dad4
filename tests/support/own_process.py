"""Scripts beside this file, each run in a process of its own: vLLM reads its settings once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def said_by(script: str, *words: str | Path) -> Any:
    """What a script says as JSON in its last line, once it has ended well."""
    with tempfile.TemporaryDirectory() as temp:  # vLLM leaves things behind in it
        done = subprocess.run(
            [sys.executable, HERE / script, *words],
            env={**os.environ, "PYTHONPATH": ".", "TMPDIR": temp},
            cwd=HERE.parents[1],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
