"""`python -m anyserve.runtime.replica CONFIG`."""

import sys

from anyserve.runtime.process import run_node
from anyserve.runtime.replica.process import serve

if __name__ == "__main__":
    sys.exit(run_node(serve))
