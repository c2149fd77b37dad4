"""The one table of keys: bindings, footer, help, command palette and `docs/tui.md` come from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Place(Enum):
    """Where a key means something; the value is how help names it."""

    ANYWHERE = "everywhere"
    OVERVIEW = "overview"
    REPLICA = "replica"
    TRACES = "requests"
    TRACE = "trace"
    CAPABILITIES = "capabilities"
    LOG = "log"
    TEXT = "help"


class Need(Enum):
    """What must be there for a key to do anything; without it the key is not shown at all."""

    NOTHING = "always"
    CONTROL = "a cluster that may be steered"
    LIVE = "a live source"
    REPLAY = "a recorded run"


@dataclass(frozen=True, slots=True)
class Key:
    """`keys` are names as Textual spells them; `label` is what people read. `footer` is the rank in
    the footer, the higher the longer it stays on a narrow screen; 0 never."""

    action: str
    keys: tuple[str, ...]
    label: str
    title: str
    help: str
    places: tuple[Place, ...] = (Place.ANYWHERE,)
    need: Need = Need.NOTHING
    footer: int = 0
    ascii_label: str = ""

    def shown(self, *, ascii_only: bool) -> str:
        """The label that may be written."""
        return self.ascii_label if ascii_only and self.ascii_label else self.label


_LISTS = (Place.OVERVIEW, Place.REPLICA, Place.TRACES, Place.CAPABILITIES)

KEYS: tuple[Key, ...] = (
    Key("open", ("enter",), "⏎", "Open", "Open what the cursor is on: replica, request, capability",
        _LISTS, footer=90, ascii_label="Enter"),
    Key("back", ("escape",), "esc", "Back",
        "One step back: prompt, filter, maximised panel, screen", footer=85),
    Key("move_down", ("j", "down"), "j ↓", "Down", "Move the cursor down", ascii_label="j Down"),
    Key("move_up", ("k", "up"), "k ↑", "Up", "Move the cursor up", ascii_label="k Up"),
    Key("move_first", ("g", "home"), "g", "First", "Go to the first row"),
    Key("move_last", ("G", "end"), "G", "Last", "Go to the last row"),
    Key("page_down", ("pagedown",), "PgDn", "Page down", "One page down"),
    Key("page_up", ("pageup",), "PgUp", "Page up", "One page up"),
    Key("panel(1)", ("1",), "1", "Replicas", "Focus the replicas; again: maximise",
        (Place.OVERVIEW,)),
    Key("panel(2)", ("2",), "2", "Routing", "Focus the routing matrix; again: maximise",
        (Place.OVERVIEW,)),
    Key("panel(3)", ("3",), "3", "Delegations", "Focus the ledger of delegations; again: maximise",
        (Place.OVERVIEW,)),
    Key("panel(4)", ("4",), "4", "Events", "Focus the events; again: maximise", (Place.OVERVIEW,)),
    Key("panel(5)", ("5",), "5", "Scenario", "Focus the scenario; again: maximise",
        (Place.OVERVIEW,)),
    Key("filter", ("slash",), "/", "Filter",
        "Show only what matches, e.g. cap:decode state:saturated wait>8",
        (Place.OVERVIEW, Place.TRACES, Place.LOG), footer=80),
    Key("sort", ("s",), "s", "Sort", "Sort by the next column", (Place.OVERVIEW, Place.TRACES),
        footer=60),
    Key("reverse", ("S",), "S", "Reverse", "Turn the order round",
        (Place.OVERVIEW, Place.TRACES), Need.LIVE),
    Key("follow", ("f",), "f", "Follow", "Keep the cursor on the newest row",
        (Place.OVERVIEW, Place.TRACES, Place.LOG), footer=22),
    Key("window", ("v",), "v", "Window", "Routing: the last 30 s, or the whole run",
        (Place.OVERVIEW,), footer=28),
    Key("errors_only", ("e",), "e", "Errors", "Events and logs: warnings and errors only",
        (Place.OVERVIEW, Place.LOG), footer=30),
    Key("traces", ("t",), "t", "Requests", "All remembered requests, newest first", footer=70),
    Key("capabilities", ("c",), "c", "Capabilities", "Who offers what, and what if one is lost",
        footer=65),
    Key("next_trace", ("n",), "n", "Next", "The next request of the list this one came from",
        (Place.TRACE,), footer=75),
    Key("previous_trace", ("N",), "N", "Previous", "The request before it", (Place.TRACE,),
        footer=74),
    Key("open_replica", ("o",), "o", "Replica", "Open the replica that served it", (Place.TRACE,),
        footer=60),
    Key("open_log", ("o",), "o", "Log", "The log of its worker on the whole screen",
        (Place.REPLICA,), footer=62),
    Key("zoom", ("z",), "z", "Zoom", "The time up to the first token, or all of it",
        (Place.TRACE,), footer=55),
    Key("next_tab", ("tab",), "tab", "Next panel", "Focus the next panel; the other log"),
    Key("pause_painting", ("space",), "space", "Pause",
        "Stop painting; the data goes on, and a badge says how old the picture is",
        need=Need.LIVE, footer=55),
    Key("play", ("space",), "space", "Play/pause", "Play the recorded run, or pause it",
        need=Need.REPLAY, footer=79),
    Key("jump(-10)", ("left_square_bracket",), "[", "-10 s", "Ten seconds back",
        need=Need.REPLAY, footer=57),
    Key("jump(10)", ("right_square_bracket",), "]", "+10 s", "Ten seconds on",
        need=Need.REPLAY, footer=56),
    Key("phase(-1)", ("left_curly_bracket",), "{", "Phase back", "To the phase before",
        need=Need.REPLAY),
    Key("phase(1)", ("right_curly_bracket",), "}", "Next phase", "To the next phase",
        need=Need.REPLAY, footer=40),
    Key("next_event", ("full_stop",), ".", "Next event",
        "To the next delegation, loss, fault or warning", need=Need.REPLAY, footer=58),
    Key("step", ("right",), "→", "Step", "One event on, paused", need=Need.REPLAY,
        ascii_label="Right"),
    Key("step_back", ("left",), "←", "Step back", "One event back, paused", need=Need.REPLAY,
        ascii_label="Left"),
    Key("faster", ("greater_than_sign",), ">", "Faster", "Twice as fast, up to 8 times",
        need=Need.REPLAY),
    Key("slower", ("less_than_sign",), "<", "Slower", "Half as fast, down to a quarter",
        need=Need.REPLAY),
    Key("speed", ("comma",), ",", "Speed", "The next speed: 0.25 to 8 times, then over again",
        need=Need.REPLAY, footer=45),
    Key("seek", ("S",), "S", "Seek", "Go to a time of the run: 47, 1:05, 50%", need=Need.REPLAY,
        footer=50),
    Key("drain", ("d",), "d", "Drain/resume",
        "Give a replica nothing new, or take it back into service",
        (Place.OVERVIEW, Place.REPLICA), Need.CONTROL, footer=35),
    Key("faults", ("x",), "x", "Fault…", "Kill, hang or slow a replica or its worker",
        (Place.OVERVIEW, Place.REPLICA), Need.CONTROL, footer=50, ascii_label="x"),
    Key("send", ("a",), "a", "Ask…", "Send one request", need=Need.CONTROL, footer=45),
    Key("rate", ("r",), "r", "Rate…", "Offer the traffic faster, slower or not at all",
        need=Need.CONTROL, footer=40),
    Key("copy", ("y",), "y", "Copy", "Copy the row, or the trace, as JSON",
        (*_LISTS, Place.TRACE, Place.LOG), footer=20),
    Key("screenshot", ("w",), "w", "Screenshot", "Write the screen as an SVG file"),
    Key("paint_faster", ("plus", "equals_sign"), "+", "Paint more", "Paint more often"),
    Key("paint_slower", ("minus",), "-", "Paint less", "Paint less often"),
    Key("theme", ("T",), "T", "Theme", "The next theme, dark or light"),
    Key("palette", ("colon", "ctrl+p"), ":", "Commands", "Everything by name (also ctrl+p)",
        footer=25),
    Key("help", ("question_mark", "f1"), "?", "Help", "What the keys and the columns mean",
        footer=95),
    Key("quit", ("q", "ctrl+q"), "q", "Quit",
        "Leave; asks once where that would stop a cluster", footer=94),
)  # fmt: skip


def keys_for(place: Place, available: frozenset[Need]) -> list[Key]:
    """The keys that mean something here, in the order of the table."""
    return [
        key
        for key in KEYS
        if key.need in available and (place in key.places or Place.ANYWHERE in key.places)
    ]


def footer_keys(place: Place, available: frozenset[Need]) -> list[Key]:
    """The keys that the footer of a place shows, in the order of the table."""
    return [key for key in keys_for(place, available) if key.footer]


def markdown(keys: Iterable[Key] = KEYS) -> str:
    """The table of keys as it stands in `docs/tui.md`."""
    rows = ["| key | what it does | where |", "|---|---|---|"]
    for key in keys:
        where = ", ".join(place.value for place in key.places)
        if key.need is not Need.NOTHING:
            where += f"; needs {key.need.value}"
        label = " ".join(f"`{one}`" for one in key.label.split(" "))
        rows.append(f"| {label} | {key.help} | {where} |")
    return "\n".join(rows) + "\n"
