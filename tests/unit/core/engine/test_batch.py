from __future__ import annotations

import itertools

import pytest

from anyserve.core.engine.batch import Batch
from anyserve.core.engine.limits import EngineLimits
from anyserve.core.engine.plan import StepPlan
from anyserve.core.engine.sequence import Sequence

numbers = itertools.count()


def sequence(prompt: int, room: int = 4, priority: int = 0) -> Sequence:
    number = next(numbers)
    return Sequence(prompt=prompt, room=room, priority=priority, arrival=number, number=number)


def limits(
    seqs: int = 8, tokens: int = 16, blocks: int = 100, *, chunked: bool = True
) -> EngineLimits:
    return EngineLimits(
        max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
        kv_blocks=blocks,
        block_size=4,
        chunked_prefill=chunked,
    )


def work(batch: Batch, plan: StepPlan) -> dict[Sequence, int]:
    """Tokens by sequence."""
    decodes = batch.members() if plan.packed else plan.decodes
    return dict.fromkeys(decodes, 1) | dict(plan.prefills)


def test_a_prompt_longer_than_the_budget_is_computed_in_chunks() -> None:
    batch = Batch(limits(tokens=16))
    long = sequence(40)
    batch.add(long)

    chunks = []
    prefilled: list[list[Sequence]] = []
    for _ in range(3):
        plan = batch.plan()
        chunks.append((plan.prefills, plan.attention))
        prefilled.append(batch.commit(plan)[0])

    assert chunks == [
        ([(long, 16)], 16 * 16),
        ([(long, 16)], 16 * (2 * 16 + 16)),
        ([(long, 8)], 8 * (2 * 32 + 8)),
    ]
    assert prefilled == [[], [], [long]]


def test_running_sequences_go_before_waiting_ones() -> None:
    batch = Batch(limits(tokens=16))
    first, second = sequence(8), sequence(30)
    batch.add(first)
    batch.commit(batch.plan())
    batch.add(second)

    plan = batch.plan()

    assert work(batch, plan) == {first: 1, second: 15}
    assert plan.admitted == [second]


def test_no_more_sequences_run_than_allowed() -> None:
    batch = Batch(limits(seqs=2))
    for _ in range(3):
        batch.add(sequence(2))

    batch.plan()

    assert (batch.running, batch.waiting) == (2, 1)


def test_priority_goes_before_arrival() -> None:
    batch = Batch(limits(seqs=1))
    later, urgent = sequence(2, priority=5), sequence(2, priority=1)
    batch.add(later)
    batch.add(urgent)

    assert batch.plan().admitted == [urgent]


def test_the_head_of_the_line_blocks_until_its_whole_sequence_fits() -> None:
    batch = Batch(limits(tokens=64, blocks=6))  # five usable blocks of four
    running, large, small = sequence(12), sequence(12), sequence(2)
    for one in (running, large, small):
        batch.add(one)

    assert batch.plan().admitted == [running]
    assert batch.waiting == 2


def test_when_blocks_run_out_the_last_in_rank_is_preempted_and_recomputed() -> None:
    batch = Batch(limits(tokens=64, blocks=5))  # four usable blocks of four
    old, young = sequence(7, room=9), sequence(7, room=9)
    batch.add(old)
    batch.add(young)
    for _ in range(2):  # both reach eight computed tokens: the blocks are full
        batch.commit(batch.plan())

    plan = batch.plan(100)
    assert (plan.preempted, plan.decodes) == ([young], [old])
    batch.commit(plan)

    assert (young.computed, young.generated, young.preemptions) == (0, 2, 1)
    assert (batch.running, batch.waiting, batch.preemptions) == (1, 1, 1)
    assert drain(batch) == {old, young}


def test_an_encoder_takes_a_prompt_as_a_whole_or_not_yet() -> None:
    batch = Batch(limits(tokens=16, blocks=0, chunked=False))
    first, second = sequence(10, room=0), sequence(10, room=0)
    batch.add(first)
    batch.add(second)

    plan = batch.plan()
    assert plan.prefills == [(first, 10)]
    assert batch.commit(plan) == ([first], [first])
    assert first.generated == 0
    assert batch.plan().prefills == [(second, 10)]


@pytest.mark.parametrize("decoding", [False, True])
def test_an_aborted_sequence_frees_its_blocks(*, decoding: bool) -> None:
    batch = Batch(limits())
    gone, waiting = sequence(8 if decoding else 30), sequence(8)
    batch.add(gone)
    batch.commit(batch.plan())
    batch.add(waiting)

    batch.abort(gone)
    batch.abort(gone)
    batch.abort(waiting)

    assert (batch.running, batch.waiting) == (0, 0)
    assert batch.cache.usage_at(batch.cache.free) == 0.0
    assert not work(batch, batch.plan())


def test_a_run_ends_where_somebody_is_complete_or_blocks_run_out() -> None:
    batch = Batch(limits(tokens=64, blocks=7))  # six usable blocks of four
    short, long = sequence(7, room=4), sequence(7, room=40)
    for one in (short, long):
        batch.add(one)
    batch.commit(batch.plan())

    assert batch.plan(2).steps == 2
    run = batch.plan(100)
    assert run.steps == 3
    assert batch.commit(run) == ([], [short])
    # `long` has computed ten tokens of three blocks; all three others are for it.
    run = batch.plan(100)
    assert run.steps == 14
    assert batch.commit(run) == ([], [])
    assert batch.plan(100).preempted == [long]


@pytest.mark.parametrize(("seqs", "steps"), [(2, 3), (3, 1)])
def test_a_waiting_sequence_keeps_no_full_batch_from_running_ahead(seqs: int, steps: int) -> None:
    batch = Batch(limits(seqs=seqs))
    for _ in range(2):
        batch.add(sequence(2))
    batch.commit(batch.plan())
    batch.add(sequence(2))

    assert batch.plan(100).steps == steps


def test_a_head_that_does_not_fit_lets_the_others_run_ahead() -> None:
    batch = Batch(limits(tokens=64, blocks=8))  # seven usable blocks of four
    batch.add(sequence(8, room=9))
    batch.commit(batch.plan())
    batch.add(sequence(20))

    run = batch.plan(100)

    assert (run.steps, run.admitted) == (8, [])
    batch.commit(run)
    assert batch.plan().admitted


def drain(batch: Batch) -> set[Sequence]:
    done: set[Sequence] = set()
    for _ in range(10_000):
        if not (batch.running or batch.waiting):
            return done
        done.update(batch.commit(batch.plan())[1])
    raise AssertionError("the engine does not come to an end")
