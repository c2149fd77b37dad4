"""The two lines at the top of every screen, and the one at the bottom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anyserve.telemetry.judge import Standing
from anyserve.telemetry.source import SourceKind
from anyserve.telemetry.views import Level, Snapshot
from anyserve.tui.frame import Frame
from anyserve.tui.keys import Key
from anyserve.tui.numbers import UNKNOWN, clock, count, ms, percent, rate
from anyserve.tui.spans import EMPTY, Line, Part, Span, fit_parts, join, line
from anyserve.tui.views.look import Look

_LAST = 1000


@dataclass(frozen=True, slots=True)
class Mode:
    """What the person has set. `stale_s`: painting is paused, and for how long."""

    crumbs: tuple[str, ...] = ()
    stale_s: float | None = None
    read_only: bool = False
    paint_hz: float = 4.0
    owns_cluster: bool = False


def header_lines(frame: Frame, mode: Mode, width: int, look: Look) -> tuple[Line, Line]:
    """Where we are, and how it goes."""
    parts = [_pad(part, look) for part in _where(frame, mode, look)]
    return (
        (Span(" "), *fit_parts(parts, width - 2)),
        (Span(" "), *fit_parts(_how(frame, look), width - 2)),
    )


def _pad(part: Part, look: Look) -> Part:
    return Part(part.priority, tuple(Span(look.glyphs.text(s.text), s.role) for s in part.spans))


def _where(frame: Frame, mode: Mode, look: Look) -> list[Part]:
    run = frame.snapshot.run
    scenario = run.scenario if run is not None else frame.facts.get("cluster", "")
    crumbs = (scenario, *mode.crumbs)
    name = [Span("anyserve", "title"), Span("  ")]
    separator = Span(" > " if look.glyphs.ascii else " › ", "dim")  # noqa: RUF001 - a breadcrumb
    for number, crumb in enumerate(one for one in crumbs if one):
        name += [separator] * bool(number) + [Span(crumb, "bold")]
    parts = [Part(_LAST, tuple(name)), Part(_LAST - 1, _badges(frame, mode, look))]
    if frame.player is not None:
        parts.append(Part(_LAST - 2, _player(frame, look)))
    elif frame.run_s is not None:
        parts.append(Part(_LAST - 2, _clock(frame)))
    seed = frame.plan.seed if run is None else run.seed
    if seed is not None:
        parts.append(Part(20, line((f"seed {seed}", "dim"))))
    broker = frame.facts.get("broker", "")
    if broker:
        away = frame.trouble or frame.facts.get("connected") == "no"
        role = "dim" if frame.ended else "bad" if away else "ok"
        where = line(("mqtt ", "dim"), (f"{look.glyphs.dot} ", role), broker.split("//")[-1])
        parts.append(Part(40, where))
    ping = frame.facts.get("ping_ms", "")
    if ping and not frame.ended:
        parts.append(Part(5, line((f"{ping} ms", "dim"))))
    parts += _bent(frame)
    if frame.snapshot.policy:
        life = "" if (frame.snapshot.epoch or 1) == 1 else f" life {frame.snapshot.epoch}"
        parts.append(Part(30, line(("policy ", "dim"), frame.snapshot.policy, (life, "warn"))))
    run_dir = frame.facts.get("run_dir", "")
    if run_dir:
        recorded = frame.facts.get("recorder", "recording") == "recording"
        dot = "dim" if frame.kind is SourceKind.REPLAY or frame.ended or not recorded else "bad"
        label = "run " if frame.kind is SourceKind.REPLAY or frame.ended else "rec "
        name_of_run = run_dir.rstrip("/").rsplit("/", 1)[-1]
        shown = (Span(label, "dim"), Span(f"{look.glyphs.dot} ", dot), Span(name_of_run))
        parts.append(Part(10, shown))
    if mode.read_only and frame.player is None:
        parts.append(Part(25, line(("read-only", "dim"))))
    return parts


def _bent(frame: Frame) -> list[Part]:
    """What makes this picture another one than the scenario's, or less than the whole."""
    parts = []
    run, one_in = frame.snapshot.run, frame.snapshot.one_in
    if run is not None and run.rate != 1 and not frame.ended:
        said = "traffic paused" if run.rate == 0 else f"traffic x{run.rate:g}"
        parts.append(Part(70, line((said, "warn"))))
    if one_in > 1:
        parts.append(Part(60, line((f"1 request in {one_in} shown", "warn"))))
    return parts


def _badges(frame: Frame, mode: Mode, look: Look) -> Line:
    kind = frame.kind
    if kind is SourceKind.REPLAY:
        badge = line((" REPLAY ", "badge-replay"))
    elif frame.ended:
        badge = line((" ENDED ", "badge-ended"))
    elif kind is SourceKind.SIM:
        badge = line((" SIM ", "badge-sim"))
    else:
        badge = line((" LIVE ", "badge-live"))
    paused = EMPTY
    if mode.stale_s is not None:
        paused = line((f" PAUSED {mode.stale_s:.0f} s ago ", "badge-paused"))
    del look
    return join([badge, paused], " ")


def _player(frame: Frame, look: Look) -> Line:
    player = frame.player
    assert player is not None
    shape = look.glyphs.play if player.playing else look.glyphs.pause
    role = "ok" if player.playing else "warn"
    times = f" {player.speed:g}{look.glyphs.times}"
    return line(
        (shape, role),
        times,
        "  ",
        (clock(player.at_s), "bold"),
        (f" / {clock(player.end_s)}", "dim"),
    )


def _clock(frame: Frame) -> Line:
    assert frame.run_s is not None
    total = f" / {clock(frame.length_s)}" if frame.length_s else ""
    return line((clock(frame.run_s), "bold"), (total, "dim"))


def _how(frame: Frame, look: Look) -> list[Part]:
    snapshot, counts = frame.snapshot, frame.snapshot.counters
    queued = sum(queue.queued for queue in snapshot.queues)
    held = sum(replica.waiting or 0 for replica in snapshot.replicas)
    running = sum(replica.running or 0 for replica in snapshot.replicas)
    slots = sum(replica.concurrency for replica in snapshot.replicas)
    full = bool(slots) and running >= slots
    waiting = f"{queued + held}"
    parts = [
        _figure(
            100,
            "queue",
            waiting,
            "warn" if _crowded(queued + held, slots) else "bold",
            look.glyphs.now,
        ),
        _figure(95, "running", f"{running}/{slots}", "warn" if full else "bold"),
        _figure(80, "in", f"{rate(frame.rates.offered)}/s"),
        _figure(85, "done", f"{rate(frame.rates.completed)}/s"),
        _figure(70, "tok/s", rate(frame.rates.tokens)),
        Part(90, _ttft(snapshot)),
        _figure(60, "delegated", percent(_share(counts.delegated_requests, counts.offered))),
    ]
    for name, value in (
        ("failed", counts.failed),
        ("rejected", counts.rejected),
        ("expired", counts.expired),
        ("recovered", counts.recoveries),
    ):
        if value:
            parts.append(_figure(88, name, count(value), "bad"))
    if snapshot.events_missing:
        parts.append(_figure(75, "events missing", count(snapshot.events_missing), "warn"))
    if frame.judged:
        parts.append(Part(65, _expectations(frame, look)))
    if frame.trouble:
        parts.append(Part(_LAST, line((frame.trouble, "bad"))))
    return parts


def _crowded(waiting: int, slots: int) -> bool:
    """Many wait, measured by how many can run."""
    return waiting > slots // 4


def _figure(priority: int, name: str, value: str, role: str = "bold", mark: str = "") -> Part:
    role = "dim" if value.startswith(UNKNOWN) else role
    alarm = f" {mark}" if role == "warn" and mark else ""
    return Part(priority, line((f"{name} ", "dim"), (value, role), (alarm, role)))


def _ttft(snapshot: Snapshot) -> Line:
    p50, p95 = ms(snapshot.ttft_p50_ms), ms(snapshot.ttft_p95_ms)
    unit = p95.split(" ")[-1]
    if p50.endswith(f" {unit}"):
        p50 = p50.removesuffix(f" {unit}")
    role = "dim" if snapshot.ttft_p95_ms is None else "bold"
    return line(("ttft p50/p95 ", "dim"), (f"{p50}/{p95}", role))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _expectations(frame: Frame, look: Look) -> Line:
    good = sum(one.standing in {Standing.MET, Standing.HOLDING} for one in frame.judged)
    bad = sum(one.standing is Standing.FAILED for one in frame.judged)
    rest = len(frame.judged) - good - bad
    glyphs = look.glyphs
    return line(
        ("expect ", "dim"),
        (f"{good}{glyphs.ok}" if good else "", "ok"),
        (f" {bad}{glyphs.bad}" if bad else "", "bad"),
        (f" {rest}{glyphs.pending}" if rest else "", "info"),
    )


def footer_line(keys: Sequence[Key], width: int, look: Look) -> Line:
    """The keys that help most here, as many as fit."""
    ascii_only = look.glyphs.ascii
    parts = [
        Part(
            key.footer,
            line(
                (key.shown(ascii_only=ascii_only), "key"),
                f" {look.glyphs.text(key.title) if ascii_only else key.title}",
            ),
        )
        for key in keys
    ]
    return (Span(" "), *fit_parts(parts, width - 2, "  "))


def advisor_line(frame: Frame, width: int, look: Look) -> Line:
    """The most urgent advice, and how many more there are; empty where there is none."""
    if not frame.advice:
        return EMPTY
    first, more = frame.advice[0], len(frame.advice) - 1
    role = "bad" if first.level is Level.ERROR else "warn"
    parts = [
        Part(
            3, line((f"{look.glyphs.now} {first.code}", role), "  ", look.glyphs.text(first.text))
        ),
        Part(2, line(("do: ", "dim"), look.glyphs.text(first.knob))),
        Part(1, line((f"+{more} more (c)" if more else "", "dim"))),
    ]
    return (Span(" "), *fit_parts(parts, width - 2, "  "))
