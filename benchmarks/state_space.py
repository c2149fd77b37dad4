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

from search import Found, search
from small_systems import LARGE, REDUCED, SYSTEMS


def measure(*, large: bool) -> list[dict[str, object]]:
    rows = []
    for name, small in SYSTEMS.items():
        rows.append(row(name, search(small), reduced=False))
        if not small.wakes:
            rows.append(row(name, search(small, reduced=True), reduced=True))
    if large:
        rows += [row(name, search(small), reduced=False) for name, small in LARGE.items()]
        for name, small in REDUCED.items():
            rows.append(row(name, search(small, reduced=True), reduced=True))
    return rows


def row(name: str, found: Found, *, reduced: bool) -> dict[str, object]:
    return {
        "system": name,
        "reduced": reduced,
        "states": found.states,
        "transitions": found.transitions,
        "ends": found.ends,
        "delegations": found.delegations,
        "steps": found.depth,
        "rounds": found.rounds,
        "s": found.seconds,
        "verdict": "complete" if found.complete else str(found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    rows = measure(large=parser.parse_args().large)
    report("state_space", "every state of small systems", rows)


if __name__ == "__main__":
    main()
