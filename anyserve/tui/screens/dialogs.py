"""Small windows above a screen: a question with an answer, a confirmation, a menu."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from anyserve.errors import UsageError


class Prompt(ModalScreen[str | None]):
    """One line to type. `check` raises `UsageError` where it is wrong; then the window stays."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", show=False)]

    def __init__(
        self, title: str, *, hint: str, check: Callable[[str], object], text: str = ""
    ) -> None:
        super().__init__()
        self._title, self._hint, self._check, self._text = title, hint, check, text

    def compose(self) -> Iterator[Widget]:
        """The line, what it may be, and what is wrong with it."""
        with Vertical(classes="dialog") as window:
            window.border_title = self._title
            window.border_subtitle = "Enter ok - esc cancel"
            yield Input(self._text, compact=True)
            yield Static(Text(self._hint), classes="hint")
            yield Static("", classes="error")

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Take it, or say why not."""
        message.stop()
        try:
            if message.value.strip():
                self._check(message.value)
        except UsageError as error:
            self.query_one(".error", Static).update(Text(f"{error.message}\n{error.hint}"))
            return
        self.dismiss(message.value)

    def action_cancel(self) -> None:
        self.dismiss(None)


class Confirm(ModalScreen[bool]):
    """A question about something that hurts. Nothing happens unless `y` is pressed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", show=False),
        Binding("n,escape,q,enter", "answer(False)", show=False),
    ]

    def __init__(self, title: str, text: str, *, yes: str) -> None:
        super().__init__()
        self._title, self._text, self._yes = title, text, yes

    def compose(self) -> Iterator[Widget]:
        """The question."""
        with Vertical(classes="dialog") as window:
            window.border_title = self._title
            window.border_subtitle = f"y {self._yes} - n or esc leave it"
            yield Static(Text(self._text))

    def action_answer(self, yes: bool) -> None:  # noqa: FBT001 - Textual calls it so
        self.dismiss(yes)


@dataclass(frozen=True, slots=True)
class Choice:
    """A line of a menu."""

    key: str
    title: str
    help: str


class Menu(ModalScreen[str | None]):
    """One of several things."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "cancel", show=False),
        Binding("j", "down", show=False),
        Binding("k", "up", show=False),
    ]

    def __init__(self, title: str, choices: Sequence[Choice]) -> None:
        super().__init__()
        self._title, self._choices = title, tuple(choices)

    def compose(self) -> Iterator[Widget]:
        """The list."""
        width = max(len(choice.title) for choice in self._choices)
        with Vertical(classes="dialog") as window:
            window.border_title = self._title
            window.border_subtitle = "Enter choose - esc leave it"
            yield OptionList(
                *(
                    Option(
                        Text.assemble((f"{one.title:<{width}}  ", "bold"), (one.help, "dim")),
                        id=one.key,
                    )
                    for one in self._choices
                )
            )

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        """Chosen."""
        message.stop()
        self.dismiss(message.option_id)

    def action_down(self) -> None:
        self.query_one(OptionList).action_cursor_down()

    def action_up(self) -> None:
        self.query_one(OptionList).action_cursor_up()

    def action_cancel(self) -> None:
        self.dismiss(None)
