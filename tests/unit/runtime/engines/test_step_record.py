from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgspec

from anyserve.runtime.engines.step_record import RecordedStep, step_record


class Scheduler:
    """Plans what it is told, in vLLM's words."""

    def __init__(self) -> None:
        self.requests = {name: SimpleNamespace(num_prompt_tokens=100) for name in ("a", "b", "c")}
        self.plan = SimpleNamespace(
            num_scheduled_tokens={"a": 1, "b": 60, "c": 40},
            scheduled_cached_reqs=SimpleNamespace(
                req_ids=["a", "b"], num_computed_tokens=[104, 40]
            ),
            scheduled_new_reqs=[SimpleNamespace(req_id="c", num_computed_tokens=0)],
        )

    def schedule(self) -> SimpleNamespace:
        return self.plan


def engine_of(scheduler: Scheduler) -> SimpleNamespace:
    return SimpleNamespace(
        engine_core=SimpleNamespace(engine_core=SimpleNamespace(scheduler=scheduler))
    )


def test_a_step_is_written_down_with_what_was_planned_for_it(tmp_path: Path) -> None:
    scheduler = Scheduler()
    record = step_record(engine_of(scheduler), {"ANYSERVE_RECORD_STEPS": str(tmp_path)})
    assert record is not None

    record.begin()
    assert scheduler.schedule() is scheduler.plan
    record.end()
    record.close()

    (line,) = next(tmp_path.glob("steps-*.jsonl")).read_bytes().splitlines()
    step = msgspec.json.decode(line, type=RecordedStep)
    assert (step.prefill_tokens, step.prefills, step.decodes, step.context) == (100, 2, 1, 105)
    assert step.attention == 60 * (2 * 40 + 60) + 40 * 40
    assert step.wall_ns >= 0


def test_two_steps_in_flight_are_told_apart_and_empty_ones_left_out(tmp_path: Path) -> None:
    scheduler = Scheduler()
    full = scheduler.plan
    record = step_record(engine_of(scheduler), {"ANYSERVE_RECORD_STEPS": str(tmp_path)})
    assert record is not None

    record.begin()
    scheduler.schedule()
    scheduler.plan = SimpleNamespace(**{**vars(full), "num_scheduled_tokens": {"a": 1}})
    scheduler.schedule()
    record.end()
    record.begin()
    scheduler.plan = SimpleNamespace(**{**vars(full), "num_scheduled_tokens": {}})
    scheduler.schedule()
    record.end()
    record.begin()
    record.end()
    record.close()

    lines = next(tmp_path.glob("steps-*.jsonl")).read_bytes().splitlines()
    steps = [msgspec.json.decode(line, type=RecordedStep) for line in lines]
    assert [(step.prefill_tokens, step.decodes) for step in steps] == [(100, 1), (0, 1)]


def test_nothing_is_recorded_unless_it_is_asked_for() -> None:
    scheduler = Scheduler()
    assert step_record(engine_of(scheduler), {}) is None
    assert scheduler.schedule() is scheduler.plan
