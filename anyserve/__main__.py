"""`python -m anyserve` is the command `anyserve`."""

from anyserve.cli.main import run

if __name__ == "__main__":
    run()
