"""`python -m anyserve.cli`: the same as `anyserve`."""

from anyserve.cli.main import run

if __name__ == "__main__":
    run()
