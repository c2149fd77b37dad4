"""`python -m anyserve.runtime.player CONFIG`."""

import sys

from anyserve.runtime.player.process import serve
from anyserve.runtime.process import run_node

if __name__ == "__main__":
    sys.exit(run_node(serve))
