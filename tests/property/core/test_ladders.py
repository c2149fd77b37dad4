from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from anyserve.core.capability import Ladder
from anyserve.errors import ScenarioError

NAMES = [f"c{n}" for n in range(6)]
maps = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(NAMES))


def climbs_for_ever(upgrades: dict[str, str]) -> bool:
    """Whether somebody is still on a ladder after more steps than there are names."""
    for start in upgrades:
        rung: str | None = start
        for _ in range(len(NAMES) + 1):
            rung = upgrades.get(rung) if rung is not None else None
        if rung is not None:
            return True
    return False


@given(maps)
def test_exactly_the_maps_with_a_cycle_are_refused(upgrades: dict[str, str]) -> None:
    try:
        Ladder(upgrades)
        refused = False
    except ScenarioError as error:
        refused = True
        shown = error.message.partition(": ")[2].split(" -> ")
        assert shown[0] == shown[-1]
        assert all(upgrades[low] == high for low, high in itertools.pairwise(shown))

    assert refused is climbs_for_ever(upgrades)


@given(maps.filter(lambda upgrades: not climbs_for_ever(upgrades)))
def test_rungs_rise_one_upgrade_at_a_time_and_end(upgrades: dict[str, str]) -> None:
    ladder = Ladder(upgrades)

    for name in NAMES:
        rungs = list(ladder.rungs(name))
        assert rungs[0] == name
        assert len(set(rungs)) == len(rungs)
        assert [ladder.above(rung) for rung in rungs] == [*rungs[1:], None]


@given(maps.filter(lambda upgrades: not climbs_for_ever(upgrades)))
def test_being_above_is_a_partial_order(upgrades: dict[str, str]) -> None:
    above = Ladder(upgrades).is_at_or_above

    for a in NAMES:
        assert above(a, a)
        for b in NAMES:
            assert a == b or not (above(a, b) and above(b, a))
            for c in NAMES:
                assert above(a, c) or not (above(a, b) and above(b, c))
