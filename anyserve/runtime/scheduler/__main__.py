"""`python -m anyserve.runtime.scheduler CONFIG`."""

import sys

from anyserve.runtime.process import run_node
from anyserve.runtime.scheduler.process import serve

if __name__ == "__main__":
    sys.exit(run_node(serve))
