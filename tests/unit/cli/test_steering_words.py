"""From the words of `anyserve control` to what a supervisor is asked."""

from __future__ import annotations

import pytest

from anyserve.cli.steering import Wish, requests_of
from anyserve.errors import UsageError
from anyserve.runtime.node_control import ConnectionFault
from anyserve.runtime.supervisor import control


@pytest.mark.parametrize(
    ("wish", "request_"),
    [
        (Wish("drain", "s1"), control.Drain(id="s1")),
        (Wish("resume", "s1"), control.Resume(target="replica", id="s1")),
        (Wish("resume", "s1.worker"), control.Resume(target="worker", id="s1")),
        (Wish("kill", "s1.worker"), control.Kill(target="worker", id="s1")),
        (Wish("hang", "s1"), control.Hang(target="replica", id="s1")),
        (
            Wish("hang", "s1.worker", lasts="1m30s"),
            control.Hang(target="worker", id="s1", duration_s=90.0),
        ),
        (Wish("slow", "h1", factor=3.0), control.Slow(id="h1", factor=3.0)),
        (Wish("rate", factor=0.0), control.Rate(factor=0.0)),
        (Wish("restart", "scheduler"), control.Restart(name="scheduler")),
        (Wish("restart", "broker", down="2s"), control.Crash(name="broker", down_s=2.0)),
        (
            Wish("partition", "s1", lasts="500ms"),
            control.Disturb(id="s1", how=ConnectionFault(kind="partition"), duration_s=0.5),
        ),
        (
            Wish("drop", "s1", share=0.1),
            control.Disturb(id="s1", how=ConnectionFault(kind="drop", share=0.1)),
        ),
        (
            Wish("delay", "s1", by="50ms", jitter="10ms"),
            control.Disturb(id="s1", how=ConnectionFault(kind="delay", by_s=0.05, jitter_s=0.01)),
        ),
    ],
)
def test_each_verb_is_one_request(wish: Wish, request_: control.AnyRequest) -> None:
    assert requests_of(wish) == [request_]


def test_mending_ends_everything_on_the_connection() -> None:
    ended = [one.how for one in requests_of(Wish("mend", "s1")) if isinstance(one, control.Disturb)]
    assert {how.kind for how in ended} == {"partition", "drop", "duplicate", "delay"}
    assert not any(how.on for how in ended)


def test_a_time_that_is_none_is_refused_with_the_option_it_stands_at() -> None:
    with pytest.raises(UsageError, match="--for") as refused:
        requests_of(Wish("hang", "s1", lasts="soon"))
    assert "60s" in refused.value.hint
