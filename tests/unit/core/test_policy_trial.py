"""The view that a policy is tried on is the one it gets."""

from __future__ import annotations

import random

from builders import request

from anyserve.core.policies import CandidateView
from anyserve.core.policy_trial import Standing, trial_view

STANDINGS = [
    Standing("old", concurrency=4, in_use=3, waiting=1, kv_usage=0.5),
    Standing("idle", concurrency=2),
    Standing("full", concurrency=2, in_use=2),
]


def view() -> CandidateView:
    homes = {"here": "idle", "gone": "full"}
    return trial_view(request(), STANDINGS, random.Random(0), homes)


def test_who_has_no_slot_is_no_candidate() -> None:
    assert [one.id for one in view()] == ["old", "idle"]
    assert len(view()) == 2
    assert {one.id for one in view().sample(5)} == {"old", "idle"}


def test_figures_are_those_of_the_standing() -> None:
    old = next(iter(view()))

    assert (old.concurrency, old.in_use, old.credit, old.waiting) == (4, 3, 1, 1)
    assert (old.fill, old.kv_usage) == (1.0, 0.5)


def test_every_index_is_there() -> None:
    least = {key: view().least(key).id for key in ("fill", "packed", "turn")}

    assert least == {"fill": "idle", "packed": "old", "turn": "old"}


def test_a_prefix_has_its_home_while_that_has_room() -> None:
    home = view().with_prefix("here")

    assert home is not None
    assert home.id == "idle"
    assert view().with_prefix("gone") is None
    assert view().with_prefix("other") is None
