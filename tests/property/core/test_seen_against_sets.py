"""Compacted memory must answer exactly as plain sets would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from anyserve.core.seen import Ordinals, SettledIds, split_request_id

ORIGINS = ("p", "q")
LIVES = range(1, 4)
NUMBERS = range(1, 8)


@given(st.lists(st.integers(1, 30)))
def test_ordinals_count_like_a_set(numbers: list[int]) -> None:
    ordinals, model = Ordinals(), set[int]()

    for number in numbers:
        assert ordinals.add(number) is (number not in model)
        model.add(number)

        watermark = next(n for n in range(len(model) + 1) if n + 1 not in model)
        assert ordinals.count == len(model)
        assert ordinals.watermark == watermark
        assert ordinals.sparse == sorted(n for n in model if n > watermark)


@given(st.permutations(range(1, 40)))
def test_when_all_have_come_nothing_is_kept(numbers: list[int]) -> None:
    ordinals = Ordinals()
    for number in numbers:
        ordinals.add(number)

    assert (ordinals.watermark, ordinals.sparse) == (39, [])


@given(
    st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
)
def test_an_id_splits_into_what_it_was_made_of(origin: str, life: int, number: int) -> None:
    assert split_request_id(f"{origin}/{life}/{number}") == (origin, life, number)


class Settling(RuleBasedStateMachine):
    """The model keeps every settled id of every life; a newer life settles all older ones."""

    def __init__(self) -> None:
        super().__init__()
        self.settled = SettledIds()
        self.ids: dict[tuple[str, int], set[int]] = {}
        self.newest: dict[str, int] = {}

    def _hear(self, origin: str, life: int) -> bool:
        self.newest[origin] = max(life, self.newest.get(origin, life))
        return self.newest[origin] == life

    @rule(origin=st.sampled_from(ORIGINS), life=st.sampled_from(LIVES), n=st.sampled_from(NUMBERS))
    def settle(self, origin: str, life: int, n: int) -> None:
        self.settled.add(f"{origin}/{life}/{n}")
        if self._hear(origin, life):
            self.ids.setdefault((origin, life), set()).add(n)

    @rule(
        origin=st.sampled_from(ORIGINS),
        life=st.sampled_from(LIVES),
        below=st.integers(0, max(NUMBERS) + 1),
    )
    def raise_watermark(self, origin: str, life: int, below: int) -> None:
        self.settled.raise_watermark(origin, life, below)
        if self._hear(origin, life):
            self.ids.setdefault((origin, life), set()).update(range(below))

    @invariant()
    def agrees_with_the_model(self) -> None:
        for origin in ORIGINS:
            for life in LIVES:
                older = life < self.newest.get(origin, 0)
                known = self.ids.get((origin, life), set())
                for n in NUMBERS:
                    expected = older or (life == self.newest.get(origin) and n in known)
                    assert (f"{origin}/{life}/{n}" in self.settled) is expected


TestSettling = Settling.TestCase
