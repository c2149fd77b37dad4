"""Topic matching and the access rules built on it."""

from __future__ import annotations

import pytest

from anyserve.errors import UsageError
from anyserve.runtime.broker.acl import ROLE_RULES, AccessRules
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.topics import covers, is_proof, matches


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("+/b", "a/b", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "b", False),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("a/+/c", "a//c", True),
    ],
)
def test_matches(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("a/#", "a/+/c", True),
        ("a/#", "a/#", True),
        ("a/#", "#", False),
        ("a/+", "a/b", True),
        ("a/+", "a/+", True),
        ("a/b", "a/+", False),
        ("a/+", "a/#", False),
        ("a/+", "a/b/c", False),
        ("a/b/c", "a/b", False),
    ],
)
def test_covers(outer: str, inner: str, expected: bool) -> None:
    assert covers(outer, inner) is expected


RULES = AccessRules("c")


@pytest.mark.parametrize("role", list(Role))
def test_a_role_hears_itself_on_proof_topics_only(role: Role) -> None:
    """Invariant 4: no message goes from a role to the same role, proofs excepted."""
    said = {
        topic.replace("+", filling)
        for topic in RULES.publish(role)
        for filling in ("sched", "r1", f"proof-{role}")
    }
    heard = {t for t in said if any(matches(f, t) for f in RULES.subscribe(role))}
    if role is Role.SCHEDULER:
        heard.discard("anyserve/c/sched/state")  # retained: a restart reads its own epoch
    assert heard == set(RULES.proofs(role).values())
    assert all(is_proof(topic) for topic in heard)


def test_every_publish_right_can_be_proven() -> None:
    for rules in ROLE_RULES.values():
        assert all(pattern.count("+") == 1 and "#" not in pattern for pattern in rules.publish)


@pytest.mark.parametrize("role", list(Role))
def test_every_proof_exercises_its_own_right_and_no_other(role: Role) -> None:
    for right, topic in RULES.proofs(role).items():
        assert [r for r in RULES.publish(role) if matches(r, topic)] == [right]


def test_only_the_scheduler_publishes_to_replicas() -> None:
    topic = "anyserve/c/replica/r1/in"
    assert [role for role in Role if RULES.may_publish(role, topic)] == [Role.SCHEDULER]


def test_the_observer_says_nothing_and_hears_all() -> None:
    assert RULES.publish(Role.OBSERVER) == ()
    assert RULES.may_subscribe(Role.OBSERVER, "anyserve/c/#")
    assert RULES.may_subscribe(Role.OBSERVER, "anyserve/#")
    assert not RULES.may_subscribe(Role.OBSERVER, "#")


def test_nats_subjects() -> None:
    allowed = RULES.nats(Role.REPLICA)
    assert "anyserve.c.*.in" in allowed["publish"]
    assert "anyserve.c.replica.*.entry" in allowed["subscribe"]
    assert RULES.nats(Role.OBSERVER)["publish"] == ["anyserve.c.nothing"]
    assert "anyserve.c.>" in RULES.nats(Role.OBSERVER)["subscribe"]


def test_mosquitto_file() -> None:
    lines = RULES.mosquitto({role: role.value for role in Role}).splitlines()
    mine = lines[lines.index("user replica") : lines.index("user origin")]
    assert "topic write anyserve/c/+/in" in mine
    assert "topic write anyserve/c/replica/+/in" not in mine
    assert "topic read anyserve/c/replica/+/in" in mine


@pytest.mark.parametrize("name", ["", "A", "a/b", "a.b", "+", "x" * 33])
def test_a_cluster_name_cannot_reach_beyond_its_topics(name: str) -> None:
    with pytest.raises(UsageError):
        AccessRules(name)
