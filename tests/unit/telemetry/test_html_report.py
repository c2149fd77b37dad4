from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from anyserve.core.events import Envelope, FaultInjected, ReplicaLoad, RunEnded, RunStarted
from anyserve.core.messages import Load
from anyserve.core.spec import Expectation
from anyserve.telemetry.expect import evaluate
from anyserve.telemetry.html.page import ReportFacts, render_report
from anyserve.telemetry.html.scale import Scale, linear, logarithmic, milliseconds, number
from anyserve.telemetry.html.series import read_series
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.summary import RunFacts, Slo, summarise, to_dict

MS = 1_000_000
S = 1_000_000_000
VOID = {"meta", "br", "hr", "img", "input", "link"}
EVIL = "<script>alert(1)</script>"


def story() -> list[Envelope]:
    teller = Storyteller()
    teller.register("s1", {"decode": 256})
    teller.register("h1", {"decode.heavy": None})
    started = RunStarted(run="r1", scenario="mixed", seed=7, planned_requests=3, planned_s=2.0)
    teller.say("player", 0, started)
    teller.say("s1", S, ReplicaLoad(replica="s1", load=Load(running=2, waiting=1)))
    teller.request("p/1/0", [Leg("s1", scheduler_queue_ns=4 * MS)])
    legs = [Leg("s1", routed=False, end="delegate"), Leg("h1", "decode.heavy")]
    teller.request("p/1/1", legs, intended_ns=S)
    teller.say("player", 2 * S, FaultInjected(action="kill", target=EVIL))
    teller.say("player", 3 * S, RunEnded(reason="completed"))
    return teller.envelopes


def page(envelopes: list[Envelope], *expectations: Expectation) -> str:
    summary = summarise(
        envelopes, slo=Slo(ttft_ms=50), facts=RunFacts(kind="live", machine={"cpus": 2, "x": EVIL})
    )
    results = evaluate(expectations, to_dict(summary))
    return render_report(envelopes, summary, results, ReportFacts(run="r1", command=EVIL))


class Checker(HTMLParser):
    """Every tag closes, in order; collects text and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker


def test_the_page_says_what_the_summary_says() -> None:
    wanted = Expectation(metric="requests.completed", op="==", value=2)
    missed = Expectation(metric="delegations.total", op="==", value=0)

    found = checked(page(story(), wanted, missed))

    assert "2 / 2" in found.text
    assert "1 of 2 expectations met" in found.text
    assert "decode → decode.heavy" in found.text
    assert "SLO" in found.text
    assert "goodput" in found.text
    assert found.tags.count("svg") >= 6


def test_the_page_needs_nothing_from_elsewhere() -> None:
    html = page(story())
    found = checked(html)

    assert found.links == []
    assert "script" not in found.tags
    assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", html)


def test_what_is_foreign_is_escaped() -> None:
    html = page(story())

    assert EVIL not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_it_follows_light_and_dark() -> None:
    html = page(story())

    assert "prefers-color-scheme: dark" in html
    colours = set(
        re.findall(r"#[0-9a-f]{3,6}\b", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))
    )
    assert colours == set()


def test_an_incomplete_run_says_so_before_all_else() -> None:
    envelopes = [one for one in story() if not isinstance(one.event, RunEnded)]

    assert "incomplete: the log stops before run.ended" in checked(page(envelopes)).text


def test_a_run_without_requests_has_a_page() -> None:
    teller = Storyteller()
    started = RunStarted(run="r1", scenario="empty", seed=7, planned_requests=0, planned_s=1.0)
    teller.say("player", 0, started)
    teller.say("player", S, RunEnded(reason="completed"))

    assert "0 / 0" in checked(page(teller.envelopes)).text


def test_series_begin_with_the_traffic_and_hold_their_last_value() -> None:
    series = read_series(story())

    assert sum(rate for _, rate in series.offered[:-1]) == pytest.approx(2.0, rel=0.2)
    assert series.replicas["s1"].running == [(1.0, 2.0), (series.end_s, 2.0)]
    assert series.busy("s1", 4)[0] is None
    assert series.busy("s1", 4)[-1] == 0.5
    assert [marker.kind for marker in series.markers] == ["fault"]


def test_axes_have_round_ends_and_ticks() -> None:
    assert linear(23, 0, 1).high == 30
    assert list(linear(23, 0, 1).ticks(4)) == [0, 10, 20, 30]
    scale = logarithmic(13, 870, 0, 100)
    assert (scale.low, scale.high) == (10, 1000)
    assert list(scale.ticks(8)) == [10, 20, 50, 100, 200, 500, 1000]
    assert scale.at(100) == pytest.approx(50)
    assert (scale.at(1), scale.at(10**6)) == (0, 100)
    assert list(logarithmic(0.011, 9000, 0, 1).ticks(8)) == [0.01, 0.1, 1, 10, 100, 1000, 10000]
    assert Scale(5, 5, 0, 10).at(5) == 0


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12_000, "12k"), (1500, "1500"), (2.5, "2.5")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_long_times_are_in_seconds() -> None:
    assert (milliseconds(20), milliseconds(2000)) == ("20 ms", "2 s")
