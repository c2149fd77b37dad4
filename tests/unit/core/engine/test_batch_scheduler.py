from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from anyserve.core.engine.batch import BatchLimits, BatchScheduler
from anyserve.core.engine.sequence import Sequence
from anyserve.core.engine.step_time import Chunk

numbers = itertools.count()


def sequence(prompt: int, room: int = 4, priority: int = 0) -> Sequence:
    number = next(numbers)
    return Sequence(prompt=prompt, room=room, priority=priority, number=number)


def limits(
    seqs: int = 8, tokens: int = 16, blocks: int = 100, *, chunked: bool = True
) -> BatchLimits:
    return BatchLimits(
        max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
        kv_blocks=blocks,
        block_size=4,
        chunked_prefill=chunked,
    )


def test_a_prompt_longer_than_the_budget_is_computed_in_chunks() -> None:
    batch = BatchScheduler(limits(tokens=16))
    long = sequence(40)
    batch.add(long)

    chunks = []
    sampled: list[list[Sequence]] = []
    for _ in range(3):
        plan = batch.schedule()
        chunks.append(plan.work[long])
        sampled.append(batch.commit(plan))

    assert chunks == [Chunk(0, 16, False), Chunk(16, 16, False), Chunk(32, 8, False)]
    assert sampled == [[], [], [long]]


def test_running_sequences_go_before_waiting_ones() -> None:
    batch = BatchScheduler(limits(tokens=16))
    first, second = sequence(8), sequence(30)
    batch.add(first)
    batch.commit(batch.schedule())
    batch.add(second)

    plan = batch.schedule()

    assert plan.work == {first: Chunk(8, 1, True), second: Chunk(0, 15, False)}
    assert plan.admitted == [second]


def test_no_more_sequences_run_than_allowed() -> None:
    batch = BatchScheduler(limits(seqs=2))
    for _ in range(3):
        batch.add(sequence(2))

    batch.schedule()

    assert (batch.running, batch.waiting) == (2, 1)


def test_priority_goes_before_arrival() -> None:
    batch = BatchScheduler(limits(seqs=1))
    later, urgent = sequence(2, priority=5), sequence(2, priority=1)
    batch.add(later)
    batch.add(urgent)

    assert batch.schedule().admitted == [urgent]


def test_the_head_of_the_line_blocks_until_its_whole_sequence_fits() -> None:
    batch = BatchScheduler(limits(tokens=64, blocks=6))  # five usable blocks of four
    running, large, small = sequence(12), sequence(12), sequence(2)
    for one in (running, large, small):
        batch.add(one)

    plan = batch.schedule()

    assert list(plan.work) == [running]
    assert batch.waiting == 2


def test_when_blocks_run_out_the_last_in_rank_is_preempted_and_recomputed() -> None:
    batch = BatchScheduler(limits(tokens=64, blocks=5))  # four usable blocks of four
    old, young = sequence(7, room=9), sequence(7, room=9)
    batch.add(old)
    batch.add(young)
    for _ in range(2):  # both reach eight computed tokens: the blocks are full
        batch.commit(batch.schedule())

    plan = batch.schedule()
    batch.commit(plan)

    assert plan.preempted == [young]
    assert list(plan.work) == [old]
    assert (young.computed, young.generated, young.preemptions) == (0, 2, 1)
    assert (batch.running, batch.waiting, batch.preemptions) == (1, 1, 1)
    assert drain(batch) == {old: 9, young: 9}


def test_an_encoder_takes_a_prompt_as_a_whole_or_not_yet() -> None:
    batch = BatchScheduler(limits(tokens=16, blocks=0, chunked=False))
    first, second = sequence(10, room=0), sequence(10, room=0)
    batch.add(first)
    batch.add(second)

    plan = batch.schedule()
    assert list(plan.work) == [first]
    assert batch.commit(plan) == [first]
    assert first.generated == 0
    assert list(batch.schedule().work) == [second]


def test_a_removed_sequence_frees_its_blocks() -> None:
    batch = BatchScheduler(limits())
    gone, waiting = sequence(8), sequence(8)
    batch.add(gone)
    batch.schedule()
    batch.add(waiting)

    batch.remove(gone)
    batch.remove(waiting)

    assert (batch.running, batch.waiting, batch.kv_usage) == (0, 0, 0.0)


def drain(batch: BatchScheduler) -> dict[Sequence, int]:
    done: dict[Sequence, int] = {}
    for _ in range(10_000):
        if not (batch.running or batch.waiting):
            return {one: one.generated for one in done}
        for one in batch.commit(batch.schedule()):
            done[one] = one.generated
    raise AssertionError("the engine does not come to an end")


@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.integers(1, 12), st.integers(0, 2)),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 4),
    st.integers(1, 24),
    st.integers(9, 20),
)
def test_every_sequence_gets_all_its_tokens_and_bounds_hold(
    work: list[tuple[int, int, int]], seqs: int, tokens: int, blocks: int
) -> None:
    batch = BatchScheduler(limits(seqs, tokens, blocks))
    wanted = {sequence(prompt, room, priority): room for prompt, room, priority in work}
    for one in wanted:
        batch.add(one)

    for _ in range(10_000):
        if not (batch.running or batch.waiting):
            break
        plan = batch.schedule()
        assert plan.work, "a step that does nothing would be repeated for ever"
        assert sum(chunk.tokens for chunk in plan.work.values()) <= tokens
        assert batch.running <= seqs
        assert 0.0 <= batch.kv_usage <= 1.0
        batch.commit(plan)

    assert {one: one.generated for one in wanted} == wanted
    assert batch.kv_usage == 0.0
