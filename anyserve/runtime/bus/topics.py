"""Topics and filters of MQTT 3.1.1, as far as AnyServe uses them."""

from __future__ import annotations

from typing import Final

PROOF_MARK: Final = "/proof-"
"""Ids that begin with `proof-` are reserved: see `anyserve.runtime.broker.proof`."""


def matches(topic_filter: str, topic: str) -> bool:
    """Whether `topic` falls under `topic_filter` (`+` one level, `#` the rest and its parent)."""
    if topic_filter == topic:
        return True
    if topic.startswith("$") and topic_filter[:1] in {"+", "#"}:
        return False  # wildcards never reach the broker's own topics
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(levels) or level not in {"+", levels[position]}:
            return False
    return len(wanted) == len(levels)


def covers(outer: str, inner: str) -> bool:
    """Whether every topic under the filter `inner` also falls under the filter `outer`."""
    outer_levels = outer.split("/")
    inner_levels = inner.split("/")
    for position, level in enumerate(outer_levels):
        if level == "#":
            return True
        if position >= len(inner_levels):
            return False
        there = inner_levels[position]
        if there == "#" or level not in {"+", there}:
            return False
    return len(outer_levels) == len(inner_levels)


def is_proof(topic: str) -> bool:
    """Whether the topic belongs to a permission proof and never to the conversation."""
    return PROOF_MARK in topic
