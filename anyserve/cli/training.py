"""What the compiler watches for a guided build: simulations of the kinds that people run.

    python -P -m anyserve.cli.training STORE

STORE is the folder of the build that writes down what runs how often.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from anyserve.compiled.store import Store
from anyserve.compiled.use import Standing, switch_on

SAMPLE: Final = 0.01
SCENARIO: Final = """
version: 1
name: training
cluster:
  capabilities:
    decode: {upgrade: decode.heavy, queue_limit: 100000}
    decode.heavy: {queue_limit: 100000}
  replicas:
    d:
      count: 24
      capabilities: [decode]
      concurrency: 32
      engine: &engine
        kind: model
        profile: llama-3.1-8b-h100-sxm
        max_model_len: 4096
        options: {async_scheduling: false}
    h:
      count: 4
      capabilities: [decode, decode.heavy]
      concurrency: 32
      engine: *engine
traffic:
  phases: [{name: all, duration: 16s}]
  streams:
    chat: {capability: decode, rate: 240, arrivals: poisson, prompt_tokens: 512, output_tokens: 128}
    upgraded: {capability: decode.heavy, entry: any, rate: 6, prompt_tokens: 200, output_tokens: 64}
"""


def main(store: str) -> int:
    """Play the scenario with a sample of its requests recorded, then a part of it with all."""
    standing = switch_on({}, Store(Path(store)))
    if standing is not Standing.IN_USE:
        sys.stderr.write(f"the build to watch is not used: {standing.value}\n")
        return 1
    _play(sample=SAMPLE, seconds=16)
    _play(sample=1.0, seconds=2)
    return 0


def _play(*, sample: float, seconds: int) -> None:
    # What is compiled is imported after the switch.
    from anyserve.sim.recorder import Sample, enveloped  # noqa: PLC0415
    from anyserve.sim.sampled_log import SampledLog  # noqa: PLC0415
    from anyserve.sim.simulation import Simulation  # noqa: PLC0415
    from anyserve.telemetry.tally import Tally  # noqa: PLC0415
    from anyserve.workload.compile import compile_scenario  # noqa: PLC0415
    from anyserve.workload.load import parse_scenario  # noqa: PLC0415

    compiled = compile_scenario(
        parse_scenario(SCENARIO), seed=1, duration_ns=seconds * 1_000_000_000
    )
    record = enveloped(lambda _envelope: None)
    if sample < 1.0:
        record = SampledLog(record, Sample(sample), Tally()).record
    Simulation(compiled, record, sample=sample).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
