"""The real supervisor's entry, with tiny nodes in the place of ours."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from anyserve.runtime.process import NodeRole
from anyserve.runtime.supervisor.__main__ import main

TINY_NODE = Path(__file__).with_name("tiny_node.py")


def command(role: NodeRole, config: Path) -> Sequence[str]:
    return (sys.executable, str(TINY_NODE), str(config))


if __name__ == "__main__":
    sys.exit(main(command=command))
