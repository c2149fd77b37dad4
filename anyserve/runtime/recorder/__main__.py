"""`python -m anyserve.runtime.recorder CONFIG`."""

import sys

from anyserve.runtime.process import run_node
from anyserve.runtime.recorder.process import serve

if __name__ == "__main__":
    sys.exit(run_node(serve))
