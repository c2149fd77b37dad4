"""Lets vLLM's CPU build plan ahead, which it does by itself on GPUs only, and has our model of its
scheduler play the same requests beside it. Prints how many steps both agreed on.

A process of its own: vLLM reads its settings once.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from typing import Any

import vllm

from anyserve.core.spec import EngineSpec
from anyserve.runtime.calibrate.meter import Meter
from anyserve.runtime.calibrate.waves import Bounds, designed, random_waves, rested
from anyserve.runtime.engines.config import engine_config
from anyserve.runtime.engines.create import create_engine
from anyserve.runtime.models.resolve import resolve_model

MODEL = "smollm2-135m"


def plan_ahead() -> None:
    """The CPU platform turns it off when a configuration is made; turn it on after that."""
    make = vllm.EngineArgs.create_engine_config

    def made(arguments: Any, *args: Any, **kwargs: Any) -> Any:
        config = make(arguments, *args, **kwargs)
        config.scheduler_config.async_scheduling = True
        return config

    vllm.EngineArgs.create_engine_config = made


def main() -> None:
    plan_ahead()
    spec = EngineSpec(kind="vllm", model=MODEL, max_model_len=512, max_num_seqs=8, kv_cache_gib=0.1)
    engine = create_engine(engine_config(spec, resolve_model(MODEL)))
    info = engine.start(lambda _stage, _done: None)
    meter = Meter(
        engine,
        info,
        embeds=False,
        clock_ns=time.monotonic_ns,
        cpu_ns=time.thread_time_ns,
        sleep=time.sleep,
        send=lambda _frame: None,
    )
    bounds = Bounds.of(info, embeds=False)
    planned = [*rested(bounds, 100)[::4], *designed(bounds)[4::5]]
    waves = [*planned, *itertools.islice(random_waves(bounds, seed=1), 2)]
    steps = sum(len(meter.play(wave)) for wave in waves)
    sys.stdout.write(json.dumps({"ahead": info.async_scheduling, "steps": steps}) + "\n")
    sys.stdout.flush()
    os._exit(0)  # nothing is left to say goodbye to


if __name__ == "__main__":
    main()
