from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest

from anyserve.core.lifecycle import (
    ORIGIN,
    SLOT,
    TICKET,
    OriginState,
    SlotState,
    Steps,
    TicketState,
    step,
)
from anyserve.errors import ProtocolError

TABLES = [
    (TICKET.allowed, TicketState),
    (SLOT.allowed, SlotState),
    (ORIGIN.allowed, OriginState),
]


@pytest.mark.parametrize(("table", "states"), TABLES)
def test_every_state_has_its_row_and_can_be_reached(
    table: Mapping[Any, frozenset[Any]], states: type[Enum]
) -> None:
    assert set(table) == set(states)
    reached = {states("new")}
    while (more := reached.union(*(table[state] for state in reached))) != reached:
        reached = more
    assert reached == set(states)


@pytest.mark.parametrize(("table", "states"), TABLES)
def test_nothing_becomes_new_again(table: Mapping[Any, frozenset[Any]], states: type[Enum]) -> None:
    assert all(states("new") not in after for after in table.values())


def test_an_ended_attempt_and_a_settled_request_stay_so() -> None:
    assert SLOT.allowed[SlotState.ENDED] == frozenset()
    assert ORIGIN.allowed[OriginState.SETTLED] == frozenset()


def test_an_allowed_step_leads_on() -> None:
    assert step(SLOT, SlotState.WAITING, SlotState.RUNNING) is SlotState.RUNNING


@pytest.mark.parametrize(
    ("table", "states"), [(TICKET, TicketState), (SLOT, SlotState), (ORIGIN, OriginState)]
)
def test_the_steps_of_the_table_are_allowed_and_no_others(
    table: Steps[Any], states: type[Enum]
) -> None:
    for before in states:
        for after in states:
            assert table.allow(before, after) == (after in table.allowed[before])


def test_a_step_that_the_table_lacks_is_an_error_that_names_both_ends() -> None:
    with pytest.raises(ProtocolError, match="no way from ended to running") as raised:
        step(SLOT, SlotState.ENDED, SlotState.RUNNING)

    assert raised.value.code == "illegal_transition"
