"""How many states the small systems have that are searched whole, and how long that takes.

    python benchmarks/state_space.py [--large]

The systems are those of tests/support/small_systems.py; docs/proofs.md explains the search.
Writes benchmarks/results/state_space.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import report

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from search import search
from small_systems import LARGE, SYSTEMS


def measure(*, large: bool) -> list[dict[str, object]]:
    rows = []
    for name, small in {**SYSTEMS, **(LARGE if large else {})}.items():
        found = search(small)
        rows.append(
            {
                "system": name,
                "states": found.states,
                "transitions": found.transitions,
                "ends": found.ends,
                "delegations": found.delegations,
                "steps": found.depth,
                "s": found.seconds,
                "verdict": "complete" if found.complete else str(found),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    rows = measure(large=parser.parse_args().large)
    report("state_space", "every state of small systems", rows)


if __name__ == "__main__":
    main()
