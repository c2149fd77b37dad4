"""What a person can do to a cluster from here: ask what is meant, confirm what hurts, do it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from anyserve.errors import AnyServeError, UsageError
from anyserve.telemetry.control import Control
from anyserve.tui.screens.dialogs import Choice, Confirm, Menu, Prompt

if TYPE_CHECKING:
    from anyserve.tui.app import AnyServeApp

_MOST_FACTOR = 1000.0


class Steering:
    """The verbs. Without a `Control` none of them can be reached."""

    def __init__(self, app: AnyServeApp) -> None:
        self._app = app

    @property
    def _control(self) -> Control:
        control = self._app.control
        assert control is not None
        return control

    def _do(self, what: str, wish: Callable[[], Awaitable[object]]) -> None:
        """Hand a wish over; say that it was, or why not."""

        async def run() -> None:
            try:
                said = await wish()
            except AnyServeError as error:
                self._app.explain_failure(error)
                return
            answer = f": {said}" if isinstance(said, str) and said else ""
            self._app.notify(f"{what}{answer}", markup=False)

        self._app.run_worker(run(), name=what, group="steering")

    def _no_target(self) -> None:
        self._app.notify("put the cursor on a replica first")

    def drain(self, replica: str | None) -> None:
        """Drain the replica, or resume it where it drains."""
        state = self._state(replica)
        if replica is None or state is None:
            self._no_target()
            return
        if state == "draining":
            self._do(f"resume {replica}", lambda: self._control.resume(replica))
        else:
            self._do(f"drain {replica}", lambda: self._control.drain(replica))

    def faults(self, replica: str | None) -> None:
        """Ask which fault, and confirm it."""
        if replica is None or self._state(replica) is None:
            self._no_target()
            return
        worker = f"{replica}.worker"
        control = self._control
        choices = [
            Choice("kill", f"kill {replica}", "its process dies; the supervisor starts it again"),
            Choice("kill-worker", f"kill {worker}", "its engine dies; the replica starts another"),
            Choice("hang", f"hang {replica} for 10 s", "it stops in its tracks, then goes on"),
            Choice("hang-worker", f"hang {worker} for 10 s", "its engine stops, then goes on"),
            Choice("slow", f"slow {replica} …", "each engine step takes longer"),
            Choice("normal", f"{replica} at normal pace", "ends slow"),
            Choice(
                "partition", f"cut {replica} off for 10 s", "no message reaches it or leaves it"
            ),
        ]
        wishes: dict[str, Callable[[], Awaitable[object]]] = {
            "kill": lambda: control.kill(replica),
            "kill-worker": lambda: control.kill(worker),
            "hang": lambda: control.hang(replica, 10.0),
            "hang-worker": lambda: control.hang(worker, 10.0),
            "normal": lambda: control.slow(replica, 1.0),
            "partition": lambda: control.partition(replica, 10.0),
        }
        titles = {choice.key: choice.title for choice in choices}

        def chosen(key: str | None) -> None:
            if key == "slow":
                self._slow(replica)
            elif key == "normal":
                self._do(titles[key], wishes[key])
            elif key is not None:
                self._confirmed(titles[key], wishes[key])

        self._app.push_screen(Menu(f"fault at {replica}", choices), chosen)

    def _confirmed(self, what: str, wish: Callable[[], Awaitable[object]]) -> None:
        def done(yes: bool | None) -> None:  # noqa: FBT001 - Textual calls it so
            if yes:
                self._do(what, wish)

        text = "Requests there are recovered or fail; what happens shows in the events."
        self._app.push_screen(Confirm(what, text, yes="do it"), done)

    def _slow(self, replica: str) -> None:
        def done(text: str | None) -> None:
            if text:
                factor = parse_factor(text)
                self._do(f"slow {replica} x{factor:g}", lambda: self._control.slow(replica, factor))

        hint = "how many times as long each engine step takes; 1 is normal"
        self._app.push_screen(
            Prompt(f"slow {replica}", hint=hint, check=_checked_factor, text="2"), done
        )

    def send(self) -> None:
        """Send one request."""
        names = self._app.look.capabilities

        def check(text: str) -> str:
            parse_request(text, names)
            return ""

        def done(text: str | None) -> None:
            if text:
                capability, entry = parse_request(text, names)
                self._do(f"sent {capability}", lambda: self._control.send(capability, entry=entry))

        hint = f"CAPABILITY, or CAPABILITY at REPLICA\nknown: {', '.join(names)}"
        first = names[0] if names else ""
        self._app.push_screen(Prompt("send one request", hint=hint, check=check, text=first), done)

    def rate(self) -> None:
        """Change the traffic's rate."""

        def done(text: str | None) -> None:
            if text:
                factor = parse_factor(text)
                self._do(f"traffic x{factor:g}", lambda: self._control.rate(factor))

        hint = "times as fast as the scenario says; 0 pauses the traffic, 1 is as planned"
        self._app.push_screen(
            Prompt("traffic rate", hint=hint, check=_checked_factor, text="1"), done
        )

    def _state(self, replica: str | None) -> str | None:
        for one in self._app.frame.snapshot.replicas:
            if one.id == replica:
                return one.state
        return None


def _checked_factor(text: str) -> str:
    parse_factor(text)
    return ""


def parse_factor(text: str) -> float:
    """A factor: `2`, `0.5`, `x3`.

    Raises:
        UsageError: it is none, or far out of range.
    """
    try:
        factor = float(text.strip().lower().removeprefix("x"))
    except ValueError:
        factor = -1.0
    if not 0 <= factor <= _MOST_FACTOR:
        raise UsageError(
            f"'{text}' is no factor", code="bad_factor", hint="write a number such as 0.5 or 2"
        )
    return factor


def parse_request(text: str, known: tuple[str, ...]) -> tuple[str, str | None]:
    """`CAPABILITY` or `CAPABILITY at REPLICA`.

    Raises:
        UsageError: nobody ever offered that capability, or there are too many words.
    """
    capability, _, entry = text.strip().partition(" at ")
    capability, entry = capability.strip(), entry.strip()
    if known and capability not in known:
        raise UsageError(
            f"nobody offers '{capability}'", code="bad_request", hint=f"known: {', '.join(known)}"
        )
    if " " in capability or " " in entry:
        raise UsageError("too many words", code="bad_request", hint="write: decode at s1")
    return capability, entry or None
