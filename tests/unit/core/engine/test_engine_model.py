from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from anyserve.core.engine.cooling import Cooling
from anyserve.core.engine.jitter import Jitter
from anyserve.core.engine.limits import EngineLimits
from anyserve.core.engine.model import EngineModel
from anyserve.core.engine.sequence import Sequence
from anyserve.core.engine.step_time import StepTime, StepTimeModel, StepWork

COOLING = Cooling(((50_000_000, 1_234_567), (900_000_000, 7_654_321)))
TIMES = StepTimeModel(
    base_ps=1_000_003, prefill_ps=50_021, decode_ps=20_011, context_ps=307, attention_ps=11
)
LIMITS = EngineLimits(max_num_seqs=4, max_num_batched_tokens=16, kv_blocks=30, block_size=4)
AHEAD = msgspec.structs.replace(LIMITS, async_scheduling=True)


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a played run. Times in nanoseconds."""

    at: int
    prompt: int
    room: int
    priority: int
    abort_after: int | None


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    at: int
    permille: int


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver may see of a run, by picosecond."""

    first: dict[int, int]
    ended: dict[int, int]
    admitted: list[tuple[int, int]]
    preempted: list[tuple[int, int]]
    looks: list[object]


class Driver:
    """Drives an engine as a simulator does: an event at a time, in whole nanoseconds."""

    def __init__(self, engine: EngineModel, asks: list[Ask], max_steps: int | None) -> None:
        self._engine = engine
        self._max_steps = max_steps
        self._sequences = [
            Sequence(owner=n, prompt=ask.prompt, room=ask.room, priority=ask.priority, number=n)
            for n, ask in enumerate(asks)
        ]
        self.seen = Observed(first={}, ended={}, admitted=[], preempted=[], looks=[])

    def until(self, now_ps: int | None) -> None:
        """End what ends by now, and go on at once; None: to the end."""
        while self._engine.busy and (now_ps is None or self._engine.end_ps <= now_ps):
            self._end()

    def say(self, at_ps: int, kind: str, value: int) -> None:
        """Tell the engine what happens then: now, or before its time."""
        engine = self._engine
        if kind == "add":
            engine.add(self._sequences[value], at_ps)
        elif kind == "abort":
            engine.abort(self._sequences[value], at_ps)
        elif kind == "pace":
            engine.set_pace(value, at_ps)
        else:
            tokens = [engine.tokens_at(one, at_ps) for one in self._sequences]
            self.seen.looks.append((at_ps, engine.load(at_ps), tokens))

    def begin_if_idle(self, now_ps: int) -> None:
        if not self._engine.busy:
            self._begin(now_ps)

    def _begin(self, now_ps: int) -> None:
        stretch = self._engine.start(now_ps, self._max_steps)
        if stretch is not None:
            self.seen.admitted.extend((now_ps, one.owner) for one in stretch.admitted)
            self.seen.preempted.extend((now_ps, one.owner) for one in stretch.preempted)

    def _end(self) -> None:
        now_ps = self._engine.end_ps
        stretch = self._engine.finish()
        assert stretch.end_ps == now_ps
        for one in stretch.prefilled:
            self.seen.first.setdefault(one.owner, now_ps)
        for one in stretch.finished:
            self.seen.ended[one.owner] = now_ps
        self._begin(now_ps)


def play(
    asks: list[Ask],
    paces: list[Pace],
    limits: EngineLimits,
    times: StepTime,
    *,
    max_steps: int | None,
    jitter: bool,
    looks: list[int],
    early: int = 0,
) -> Observed:
    """A run. Requests and aborts are told so many nanoseconds before their time."""
    noise = Jitter((-0.1, -0.02, 0.0, 0.03, 0.3), seed=5) if jitter else None
    engine = EngineModel(
        limits, times, intake_ps=70_001, cooling=COOLING, shape_ps=3_007, jitter=noise
    )
    events = [(ask.at, "add", n) for n, ask in enumerate(asks)]
    events += [
        (ask.at + ask.abort_after, "abort", n)
        for n, ask in enumerate(asks)
        if ask.abort_after is not None
    ]
    events += [(pace.at, "pace", pace.permille) for pace in paces]
    events += [(at, "look", 0) for at in looks]
    driver = Driver(engine, asks, max_steps)
    moments: list[tuple[int, int, int, str, int]] = []
    for at, kind, value in events:
        told = max(0, at - early) if kind in ("add", "abort") else at
        moments += [(told, 0, at, kind, value), (at, 1, at, "", 0)]
    for now, _, at, kind, value in sorted(moments):
        driver.until(now * 1000)
        if kind:
            driver.say(at * 1000, kind, value)
        else:
            driver.begin_if_idle(now * 1000)
    driver.until(None)
    assert not engine.has_work_by(1 << 60)
    return driver.seen


asks = st.lists(
    st.builds(
        Ask,
        at=st.integers(0, 60_000),
        prompt=st.integers(1, 40),
        room=st.integers(1, 40),
        priority=st.integers(0, 2),
        abort_after=st.none() | st.integers(1, 40_000),
    ),
    min_size=1,
    max_size=12,
)
rules = st.builds(
    EngineLimits,
    max_num_seqs=st.integers(1, 6),
    max_num_batched_tokens=st.integers(6, 40),
    kv_blocks=st.integers(22, 60),
    block_size=st.just(4),
    priorities=st.booleans(),
    prefix_caching=st.booleans(),
    async_scheduling=st.booleans(),
)


@given(
    asks=asks,
    paces=st.lists(
        st.builds(Pace, at=st.integers(0, 60_000), permille=st.sampled_from([1000, 1537, 3000])),
        max_size=3,
    ),
    limits=rules,
    jitter=st.booleans(),
    looks=st.lists(st.integers(0, 90_000), max_size=8),
)
def test_stretches_and_single_steps_are_the_same_to_the_picosecond(
    asks: list[Ask], paces: list[Pace], limits: EngineLimits, *, jitter: bool, looks: list[int]
) -> None:
    whole = play(asks, paces, limits, TIMES, max_steps=None, jitter=jitter, looks=looks)
    single = play(asks, paces, limits, TIMES, max_steps=1, jitter=jitter, looks=looks)

    assert whole == single
    wanted = {n for n, ask in enumerate(asks) if ask.abort_after is None}
    assert wanted <= whole.ended.keys()


@given(
    asks=asks,
    paces=st.lists(st.builds(Pace, at=st.integers(0, 60_000), permille=st.just(1537)), max_size=2),
    limits=rules,
    looks=st.lists(st.integers(0, 90_000), max_size=8),
    early=st.integers(1, 30_000),
)
def test_what_is_told_before_its_time_is_the_same_as_told_then(
    asks: list[Ask], paces: list[Pace], limits: EngineLimits, looks: list[int], early: int
) -> None:
    settings = {"max_steps": None, "jitter": False, "looks": looks}
    then = play(asks, paces, limits, TIMES, **settings)  # type: ignore[arg-type]
    before = play(asks, paces, limits, TIMES, **settings, early=early)  # type: ignore[arg-type]

    assert before == then


@given(asks=asks, limits=rules, looks=st.lists(st.integers(0, 90_000), max_size=8))
def test_planning_ahead_brings_all_to_their_end(
    asks: list[Ask], limits: EngineLimits, looks: list[int]
) -> None:
    ahead = msgspec.structs.replace(limits, async_scheduling=True)

    seen = play(asks, [], ahead, TIMES, max_steps=None, jitter=False, looks=looks)

    wanted = {n for n, ask in enumerate(asks) if ask.abort_after is None}
    assert wanted <= seen.ended.keys()


def test_with_planning_ahead_an_arrival_waits_for_one_more_step() -> None:
    engine = EngineModel(AHEAD, StepTimeModel(base_ps=1_000))
    first, second = Sequence(prompt=3, room=5), Sequence(prompt=3, room=1)
    engine.add(first, 0)
    engine.start(0)
    engine.add(second, 500)
    ends: dict[Sequence, int] = {}
    while engine.busy:
        now_ps = engine.end_ps
        ends |= dict.fromkeys(engine.finish().finished, now_ps)
        engine.start(now_ps)

    assert ends == {second: 3_000, first: 5_000}


def test_planned_ahead_a_run_of_decodes_is_one_stretch_until_its_last_token_is_under_way() -> None:
    engine = EngineModel(AHEAD, TIMES)
    sequence = Sequence(prompt=3, room=12)
    engine.add(sequence, 0)
    engine.start(0)
    steps: list[int] = []
    while engine.busy:
        now_ps = engine.end_ps
        steps.append(engine.finish().steps)
        engine.start(now_ps)

    assert steps == [1, 10, 1]
    assert sequence.generated == 12


def test_an_arrival_cuts_a_run_that_is_planned_ahead() -> None:
    engine = EngineModel(AHEAD, StepTimeModel(base_ps=1_000))
    first, second = Sequence(prompt=3, room=20), Sequence(prompt=3, room=1)
    engine.add(first, 0)
    engine.start(0)
    engine.finish()
    engine.start(1_000)
    engine.add(second, 4_500)

    assert engine.end_ps == 5_000
    assert engine.tokens_at(first, 4_500) == 4
    assert engine.finish().steps == 4


def test_a_run_of_decodes_is_one_stretch() -> None:
    engine = EngineModel(LIMITS, TIMES)
    engine.add(Sequence(prompt=3, room=11), 0)
    first = engine.start(0)
    assert first is not None
    engine.finish()

    stretch = engine.start(first.end_ps)

    assert stretch is not None
    assert stretch.steps == 10
    each = [TIMES.step_ps(StepWork(decodes=1, context=context)) for context in range(4, 14)]
    assert stretch.end_ps - stretch.start_ps == sum(each)


def test_an_arrival_cuts_a_stretch_at_the_next_step_end() -> None:
    engine = EngineModel(LIMITS, TIMES)
    running = Sequence(prompt=3, room=11)
    engine.add(running, 0)
    engine.start(0)
    now_ps = engine.finish().end_ps
    stretch = engine.start(now_ps)
    assert stretch is not None
    second_ends = now_ps + sum(
        TIMES.step_ps(StepWork(decodes=1, context=context)) for context in (4, 5)
    )

    engine.add(Sequence(prompt=3, room=2), second_ends)

    assert (stretch.steps, engine.end_ps) == (2, second_ends)
    assert engine.tokens_at(running, second_ends - 1) == 2
    assert engine.tokens_at(running, second_ends) == 3
    engine.finish()
    following = engine.start(second_ends)
    assert following is not None
    assert len(following.admitted) == 1


def test_what_came_a_moment_after_the_start_cuts_the_stretch_as_well() -> None:
    engine = EngineModel(LIMITS, TIMES)
    engine.add(Sequence(prompt=3, room=11), 0)
    engine.start(0)
    now_ps = engine.finish().end_ps
    engine.add(Sequence(prompt=3, room=2), now_ps + 131)  # the same nanosecond, rounded up

    stretch = engine.start(now_ps)

    assert stretch is not None
    assert (stretch.steps, stretch.admitted) == (1, [])


def test_a_users_model_needs_no_formula() -> None:
    class Fixed:
        def step_ps(self, work: StepWork) -> int:
            return 1_000 + work.decodes

    times: StepTime = Fixed()
    engine = EngineModel(LIMITS, times)
    engine.add(Sequence(prompt=3, room=3), 0)
    ends = []
    stretch = engine.start(0)
    while stretch is not None:
        ends.append((stretch.steps, stretch.end_ps))
        engine.finish()
        stretch = engine.start(ends[-1][1])

    assert ends == [(1, 1_000), (1, 2_001), (1, 3_002)]


def test_intake_delays_the_step_that_follows() -> None:
    engine = EngineModel(LIMITS, StepTimeModel(base_ps=10_000), intake_ps=500)
    for _ in range(2):
        engine.add(Sequence(prompt=3, room=2), 0)

    stretch = engine.start(0)

    assert stretch is not None
    assert stretch.end_ps == 11_000
    engine.finish()
    following = engine.start(11_000)
    assert following is not None
    assert following.end_ps == 21_000


def test_the_first_step_after_a_rest_takes_longer_the_longer_the_rest() -> None:
    cooling = Cooling(((100_000, 500), (500_000, 900)))
    engine = EngineModel(LIMITS, StepTimeModel(base_ps=10_000), cooling=cooling)
    ends = []
    for begins in (0, 20_900 + 20_000, 60_000 + 300_000 + 1_000, 2_000_000):
        engine.add(Sequence(prompt=3, room=2), begins)
        first = engine.start(begins)
        assert first is not None
        engine.finish()
        second = engine.start(first.end_ps)
        assert second is not None
        engine.finish()
        assert second.end_ps - first.end_ps == 10_000
        assert engine.start(second.end_ps) is None
        ends.append(first.end_ps - begins)

    assert ends == [10_900, 10_100, 10_700, 10_900]


def test_the_first_step_of_so_many_tokens_takes_longer() -> None:
    engine = EngineModel(LIMITS, StepTimeModel(base_ps=10_000), shape_ps=100)
    took = []
    for at in (0, 1_000_000):
        for _ in range(2):
            engine.add(Sequence(prompt=3, room=3), at)
        stretch = engine.start(at)
        while stretch is not None:
            took.append((stretch.steps, stretch.end_ps - stretch.start_ps))
            engine.finish()
            stretch = engine.start(stretch.end_ps)

    assert took == [(1, 10_600), (2, 20_200), (1, 10_000), (2, 20_000)]


def test_jitter_sums_are_those_of_single_steps_and_mean_nothing() -> None:
    jitter = Jitter((-0.2, 0.0, 0.1, 0.6), seed=3)

    assert jitter.units(5, 40) == sum(jitter.units(step, 1) for step in range(5, 45))
    assert abs(jitter.units(0, 4096)) < 4096
    assert jitter.units(7, 3) != Jitter((-0.2, 0.0, 0.1, 0.6), seed=4).units(7, 3)
