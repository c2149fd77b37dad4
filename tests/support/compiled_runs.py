"""Plays scenarios in a process that runs compiled modules, or none of them.

    python -P compiled_runs.py STORE SCENARIO ...

STORE is a folder of builds, or "-" for Python. Prints, as JSON, whether compiled modules were used,
for each scenario a digest of its events and of what they add up to, or the error that ended it, how
fast the first one's engines are found to have been, and how many objects a run of it leaves behind.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from anyserve.compiled.store import Store
from anyserve.compiled.use import SWITCH, in_use, switch_on

SECONDS = 20


def main(store: str, scenarios: list[str]) -> None:
    switch_on({SWITCH: "0"} if store == "-" else {}, Store(Path(store)))
    paths = [Path(scenario) for scenario in scenarios]
    found: dict[str, Any] = {"logs": {str(path): log_of(path) for path in paths}}
    found |= {"speed": speed_of(paths[0]), "left_behind": left_behind(paths[0])}
    print(json.dumps({"compiled": in_use(), **found}))  # noqa: T201 - the answer


def compiled_scenario(path: Path) -> Any:
    from anyserve.workload.compile import compile_scenario  # noqa: PLC0415 - after the switch
    from anyserve.workload.load import load_scenario  # noqa: PLC0415

    return compile_scenario(
        load_scenario(path),
        seed=3,
        duration_ns=SECONDS * 1_000_000_000,
        engine_kind=lambda _section: "model",
    )


def speed_of(path: Path) -> str:
    """The scales of engines that took 1.3 times as long as they say, their prompts 2.6 times."""
    from anyserve.sim.engine_times import TimesByKind, kind_of  # noqa: PLC0415
    from anyserve.sim.matching import Scale, Scales, match, simulated_times  # noqa: PLC0415

    what = compiled_scenario(path)

    def simulate(scales: Scales) -> TimesByKind:
        return simulated_times(what, scales, str(path.absolute().parent))

    kinds = {kind_of(replica.engine) for replica in what.cluster.replicas}
    return str(match(simulate(dict.fromkeys(kinds, Scale(1.3, 2.0))), simulate))


def left_behind(path: Path) -> int:
    """Objects that are there after a run and were not before: one that was there before, so that
    caches are filled."""
    gc.collect()
    before = len(gc.get_objects())
    log_of(path)
    gc.collect()
    return len(gc.get_objects()) - before


def log_of(path: Path) -> str:
    import msgspec  # noqa: PLC0415 - what is compiled is imported after the switch

    from anyserve.core.events import Envelope  # noqa: PLC0415
    from anyserve.errors import AnyServeError  # noqa: PLC0415
    from anyserve.sim.recorder import Enveloped  # noqa: PLC0415
    from anyserve.sim.simulation import Simulation  # noqa: PLC0415
    from anyserve.telemetry.summary import RunFacts, summary_of, to_dict  # noqa: PLC0415
    from anyserve.telemetry.tally import Tally  # noqa: PLC0415

    found = hashlib.sha256()
    encoder = msgspec.json.Encoder()
    tally = Tally()

    def record(envelope: Envelope) -> None:
        found.update(encoder.encode(envelope))
        tally.add(envelope)

    compiled = compiled_scenario(path)
    try:
        Simulation(compiled, Enveloped(record), scenario_dir=str(path.absolute().parent)).run()
    except AnyServeError as error:
        return f"{error.code} after {found.hexdigest()}"
    facts = RunFacts(scenario=compiled.cluster.name, seed=compiled.seed, kind="sim")
    found.update(encoder.encode(to_dict(summary_of(tally, {}, facts))))
    return found.hexdigest()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
