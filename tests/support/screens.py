"""A made-up day of a small cluster, and the application on it: for the tests of screens."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache

from msgspec import structs
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input

from anyserve.core.events import (
    BusTrouble,
    Envelope,
    FaultInjected,
    PhaseStarted,
    ReplicaChanged,
    ReplicaLoad,
    RequestOffered,
    RequestOutcome,
    RequestQueued,
    RequestSubmitted,
    RunEnded,
    RunStarted,
    SchedulerLoad,
    SchedulerStarted,
    WorkerChanged,
)
from anyserve.core.messages import Load
from anyserve.core.spec import ClusterSpec, Expectation, FaultSpec
from anyserve.errors import UsageError
from anyserve.telemetry.control import Control
from anyserve.telemetry.recording import Recording, record
from anyserve.telemetry.run_plan import PlannedPhase, RunPlan
from anyserve.telemetry.source import ListSource, SourceKind
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.summary import Slo
from anyserve.tui.app import AnyServeApp
from anyserve.tui.feed import LiveFeed
from anyserve.tui.options import TuiOptions
from anyserve.tui.replay import ReplayFeed

S, MS = 1_000_000_000, 1_000_000
SIZES = ((80, 24), (120, 36), (170, 42))
NOW_S = 38.0
FACTS = {"broker": "mqtt://127.0.0.1:1883", "cluster": "story"}

_OFFERS: Mapping[str, Mapping[str, int | None]] = {
    "r1": {"chat": 512},
    "r2": {"chat": 512, "vision": None},
    "r3": {"chat": 512, "code": 2048},
    "r4": {"code": 4096},
    "r5": {"long": 32768},
}
_PHASES = (("warm", 0, 10), ("steady", 10, 25), ("burst", 25, 45), ("cool", 45, 60))
DELEGATED = "player/1/12"
"""A request that entered at r1 and was served at r4."""

PLAN = RunPlan(
    file="scenarios/story.yaml",
    seed=7,
    phases=tuple(PlannedPhase(name, start * S, end * S) for name, start, end in _PHASES),
    offers_ns=tuple(
        at * MS for at in range(0, 60_000, 500) for _ in range(2 if 25_000 <= at < 45_000 else 1)
    ),
    faults=(
        FaultSpec(at_ns=30 * S, action="kill", target="r5", line=22),
        FaultSpec(at_ns=50 * S, action="slow", target="r3", factor=2.0, line=24),
    ),
    expectations=(
        Expectation(
            metric="delegations.max_per_request",
            op="<=",
            value=1.0,
            line=30,
            text="delegations.max_per_request <= 1",
        ),
        Expectation(
            metric="requests.failed", op="==", value=0.0, line=31, text="requests.failed == 0"
        ),
        Expectation(metric="ttft.p95_ms", op="<", value=800.0, line=32, text="ttft.p95_ms < 800"),
    ),
    slo={"*": Slo(ttft_ms=2000.0)},
    cluster=ClusterSpec(name="story", capabilities=(), replicas=()),
)


@cache
def story() -> list[Envelope]:
    """Sixty seconds of traffic for five replicas; at 30 s one of them is killed."""
    teller = Storyteller()
    teller.say("scheduler", -5 * S, SchedulerStarted(epoch=1, policy="least-loaded", replayed=-1))
    for name, offers in _OFFERS.items():
        teller.say(name, -4 * S, ReplicaChanged(replica=name, state="starting", incarnation=1))
        teller.say(name, -2 * S, WorkerChanged(replica=name, state="ready", pid=4000, ready_s=2.0))
        teller.say(
            name,
            -1 * S,
            ReplicaChanged(
                replica=name,
                state="ready",
                incarnation=1,
                offers=offers,
                concurrency=4,
                entry_queue=16,
                engine="echo",
            ),
        )
    teller.say("r6", -1 * S, ReplicaChanged(replica="r6", state="starting", incarnation=1,
                                            offers={"vision": None}, concurrency=4,
                                            progress=0.62))  # fmt: skip
    run = RunStarted(run="story-7", scenario="story", seed=7, planned_requests=160, planned_s=60.0)
    teller.say("player", 0, run)
    _requests(teller)
    _happenings(teller)
    _loads(teller)
    teller.say("player", 60 * S, RunEnded(reason="completed"))
    return _numbered(sorted(teller.envelopes, key=lambda one: one.t))


def _numbered(envelopes: list[Envelope]) -> list[Envelope]:
    """Each source counts what it says in the order in which it says it."""
    counts: Counter[str] = Counter()
    numbered = []
    for envelope in envelopes:
        numbered.append(structs.replace(envelope, seq=counts[envelope.source]))
        counts[envelope.source] += 1
    return numbered


def _requests(teller: Storyteller) -> None:
    for n in range(100):
        at = n * 600 * MS
        request = f"player/1/{n + 1}"
        teller.request(request, _legs(n), intended_ns=at, client_delay_ns=(n % 5) * 100_000,
                       n_tokens=16 + n % 30, prompt_tokens=40 + 7 * (n % 20))  # fmt: skip
    _unserved(teller)


def _legs(n: int) -> list[Leg]:
    decode = (200 + 37 * (n % 11)) * MS
    prefill = (18 + n % 9) * MS
    queue = (n % 4) * 12 * MS
    if n % 10 == 1:
        entry = Leg("r1", "code", end="delegate", routed=False, reason="not_registered",
                    upgraded="code", back_ns=MS)  # fmt: skip
        return [entry, Leg("r4", "code", prefill_ns=prefill, decode_ns=2 * decode)]
    if n % 10 == 6:
        entry = Leg("r2", "chat", end="delegate", routed=False, reason="too_long", upgraded="code")
        served = Leg("r3" if n % 20 == 6 else "r4", "code", scheduler_queue_ns=queue,
                     prefill_ns=4 * prefill, decode_ns=decode)  # fmt: skip
        return [entry, served]
    if n == 48:
        lost = Leg("r1", "chat", end="lost", decode_ns=900 * MS)
        return [lost, Leg("r3", "chat", prefill_ns=prefill, decode_ns=decode)]
    if n % 10 == 8 and n < 48:
        return [Leg("r5", "long", prefill_ns=6 * prefill, decode_ns=3 * decode)]
    if n % 7 == 3:
        return [Leg("r2", "vision", queue_ns=queue, prefill_ns=2 * prefill, decode_ns=decode)]
    where = ("r1", "r2", "r3")[n % 3]
    return [Leg(where, "chat", queue_ns=queue, prefill_ns=prefill, decode_ns=decode)]


def _unserved(teller: Storyteller) -> None:
    """After r5 was killed nobody offers `long`: one request is given up, one waits."""
    for n, at in ((101, 32 * S), (102, 36 * S)):
        request = f"player/1/{n}"
        offered = RequestOffered(id=request, capability="long", prompt_tokens=9000, max_tokens=64,
                                 entry="scheduler", intended_ns=at)  # fmt: skip
        teller.say("player", at, offered)
        teller.say("player", at, RequestSubmitted(id=request, submission=1, entry="scheduler"))
        queued = RequestQueued(id=request, capability="long", depth=n - 100, received_ns=at + MS)
        teller.say("scheduler", at + MS, queued)
    teller.say(
        "player",
        35 * S,
        RequestOutcome(id="player/1/101", outcome="rejected", end_ns=35 * S, code="no_replica",
                       message="no replica offers long"),
    )  # fmt: skip


def _happenings(teller: Storyteller) -> None:
    for name, start, end in _PHASES:
        teller.say("player", start * S, PhaseStarted(name=name, planned_s=float(end - start)))
    fault = FaultInjected(action="kill", target="r5", line=22)
    teller.say("supervisor", 30 * S, fault)
    lost = ReplicaChanged(replica="r5", state="lost", incarnation=1, detail="last will")
    teller.say("scheduler", 30 * S + 200 * MS, lost)
    draining = ReplicaChanged(replica="r2", state="draining", incarnation=1)
    teller.say("r2", 33 * S, draining)
    teller.say("r3", 34 * S, ReplicaChanged(replica="r3", state="saturated", incarnation=1))
    trouble = BusTrouble(kind="malformed", detail="on sched/in: not a list")
    teller.say("scheduler", 37 * S, trouble)


def _loads(teller: Storyteller) -> None:
    for second in range(60):
        for place, name in enumerate(_OFFERS):
            if name == "r5" and second > 30:
                continue
            running = min(4, (second * (place + 2) // 7) % 6)
            full = name == "r3" and second >= 30
            load = Load(
                running=4 if full else running,
                waiting=3 if full else int(running == 4 and place < 2),
                kv_usage=min(0.97, 0.05 + 0.02 * second) if name == "r3" else 0.1 * running,
                tokens_per_s=38.0 * running,
            )
            teller.say(name, second * S + place * MS, ReplicaLoad(replica=name, load=load))
        queued = SchedulerLoad(queues={"long": int(second > 36)}, bound=4)
        teller.say("scheduler", second * S, queued)


def steady_load(seconds: int) -> list[Envelope]:
    """One replica that runs two requests all the time, and nothing else."""
    teller = Storyteller()
    ready = ReplicaChanged(replica="r1", state="ready", incarnation=1, offers={"chat": None},
                           concurrency=4)  # fmt: skip
    teller.say("r1", 0, ready)
    for second in range(seconds):
        teller.say("r1", second * S, ReplicaLoad(replica="r1", load=Load(running=2)))
    return teller.envelopes


@cache
def recording() -> Recording:
    """The story as it was recorded."""
    return record(story())


@dataclass(slots=True)
class Clock:
    """A monotonic clock that a test moves."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(slots=True)
class Wishes:
    """A `Control` that notes what was asked of it; it refuses what `refuses` names."""

    said: list[tuple[object, ...]] = field(default_factory=list)
    refuses: str = ""

    def _note(self, verb: str, *values: object) -> None:
        if verb == self.refuses:
            raise UsageError(f"cannot {verb}", code="no", hint="try another")
        self.said.append((verb, *values))

    async def drain(self, replica: str) -> None:
        self._note("drain", replica)

    async def resume(self, replica: str) -> None:
        self._note("resume", replica)

    async def kill(self, target: str) -> None:
        self._note("kill", target)

    async def hang(self, target: str, duration_s: float | None = None) -> None:
        self._note("hang", target, duration_s)

    async def slow(self, replica: str, factor: float) -> None:
        self._note("slow", replica, factor)

    async def partition(self, replica: str, duration_s: float | None = None) -> None:
        self._note("partition", replica, duration_s)

    async def send(
        self, capability: str, *, entry: str | None = None, options: Mapping[str, str] | None = None
    ) -> str:
        self._note("send", capability, entry)
        return "tui/1/1"

    async def rate(self, factor: float) -> None:
        self._note("rate", factor)


def replay_app(
    clock: Clock,
    *,
    at_s: float = NOW_S,
    playing: bool = False,
    facts: Mapping[str, str] = FACTS,
    options: TuiOptions | None = None,
) -> AnyServeApp:
    """The application on the recorded story."""
    feed = ReplayFeed(recording(), PLAN, facts, clock, at_s=at_s, playing=playing)
    return AnyServeApp(feed, None, clock, options=options)


def live_app(
    clock: Clock,
    control: Control | None = None,
    *,
    until_s: float = NOW_S,
    facts: Mapping[str, str] = FACTS,
    owns_cluster: bool = False,
    options: TuiOptions | None = None,
) -> AnyServeApp:
    """The application on a cluster that has said the story up to `until_s`, and goes on."""
    heard = [one for one in story() if one.t <= until_s * S]
    source = OpenSource(heard, kind=SourceKind.LIVE, facts=facts)
    feed = LiveFeed(source, PLAN, clock)
    return AnyServeApp(feed, control, clock, owns_cluster=owns_cluster, options=options)


class OpenSource(ListSource):
    """A `ListSource` that does not end with its last event, but when it is closed or `finish`ed."""

    def __init__(
        self, envelopes: list[Envelope], *, kind: SourceKind, facts: Mapping[str, str]
    ) -> None:
        import asyncio  # noqa: PLC0415

        super().__init__(envelopes, kind=kind, facts=facts)
        self._over = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[list[Envelope]]:
        async for batch in super().__aiter__():
            yield list(batch)
        await self._over.wait()

    def finish(self) -> None:
        """No more events will come."""
        self._over.set()

    async def close(self) -> None:
        await super().close()
        self._over.set()


def render_text(screen: Screen[object]) -> str:
    """What stands on a screen, as plain text."""
    strips = screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips) + "\n"


@asynccontextmanager
async def shown(app: AnyServeApp, size: tuple[int, int] = (120, 36)) -> AsyncIterator[Pilot[int]]:
    """The application, running and painted once."""
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        app.tick()
        await pilot.pause()
        yield pilot


async def press(pilot: Pilot[int], *keys: str) -> None:
    """Press keys one after the other; pause once at the end, for what they set in motion."""
    await pilot.press(*keys)
    await pilot.pause()


async def answer(pilot: Pilot[int], text: str) -> None:
    """Write into the prompt that is open, and press Enter."""
    pilot.app.screen.query_one(Input).value = text
    await press(pilot, "enter")


def notes(app: AnyServeApp) -> str:
    """What the application has said in passing."""
    return "\n".join(one.message for one in app._notifications)


async def text_after(pilot: Pilot[int], *keys: str) -> str:
    """What the screen says after these keys."""
    if keys:
        await press(pilot, *keys)
    assert isinstance(pilot.app, AnyServeApp)
    pilot.app.tick()
    await pilot.pause()
    return render_text(pilot.app.screen)
