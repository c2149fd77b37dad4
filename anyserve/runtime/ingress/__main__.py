"""`python -m anyserve.runtime.ingress CONFIG`."""

import sys

from anyserve.runtime.ingress.process import serve
from anyserve.runtime.process import run_node

if __name__ == "__main__":
    sys.exit(run_node(serve))
