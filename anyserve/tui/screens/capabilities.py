"""Capabilities and who offers them; what if one is lost; all advice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from textual.widget import Widget

from anyserve.tui.frame import Frame
from anyserve.tui.keys import Place
from anyserve.tui.screens.base import FocusLines, FrameScreen
from anyserve.tui.spans import Line
from anyserve.tui.views import capabilities as view
from anyserve.tui.widgets.grid import LiveGrid

_BORDER = 2
_LEAST_SIDE = 6


class CapabilitiesScreen(FrameScreen):
    """The tree of capabilities and replicas. Enter shows a capability's replicas alone."""

    place = Place.CAPABILITIES
    crumbs = ("capabilities",)

    def __init__(self, capability: str = "") -> None:
        super().__init__()
        self._first = capability

    def body(self) -> Iterator[Widget]:
        """See `FrameScreen`."""
        yield LiveGrid[view.Node](
            view.COLUMNS,
            key=lambda node: node.key,
            render=self._cells,
            palette=self.palette,
            glyphs=self.look.glyphs,
            empty="no replica has offered anything yet",
            id="tree",
            classes="panel",
        )
        yield FocusLines(self.palette, id="side", classes="panel")

    def on_mount(self) -> None:
        """See `FrameScreen`."""
        super().on_mount()
        self._tree.focus()

    @property
    def _tree(self) -> LiveGrid[view.Node]:
        return self.query_one("#tree", LiveGrid)

    def _cells(self, node: view.Node, widths: Mapping[str, int]) -> Mapping[str, Line]:
        return view.cells(node, widths, self.desk.frame, self.look)

    def paint_body(self, frame: Frame) -> None:
        """See `FrameScreen`."""
        tree, side = self._tree, self.query_one("#side", FocusLines)
        nodes = view.nodes(frame.snapshot)
        tree.show(nodes)
        if self._first and tree.move_to(self._first):
            self._first = ""
        width = max(20, side.scrollable_content_region.width or self.size.width - _BORDER)
        lines = view.side_lines(tree.cursor_item, frame, width, self.look)
        body = self.body_height
        below = min(max(_LEAST_SIDE, len(lines) + _BORDER), body // 2)
        tree.styles.height = body - below
        side.styles.height = below
        side.show(lines)
        tree.label(title="capabilities")
        tree.label(subtitle=self.say("enter: its replicas on the overview"))
        side.label(title="what if")

    def replica_at_cursor(self) -> str | None:
        """See `FrameScreen`."""
        node = self._tree.cursor_item
        return None if node is None or node.replica is None else node.replica.id

    def copy_object(self) -> Any:
        """See `FrameScreen`."""
        node = self._tree.cursor_item
        return None if node is None else asdict(node)

    def on_live_grid_opened(self, message: LiveGrid.Opened) -> None:
        """A replica opens; a capability filters the overview."""
        message.stop()
        node = self._tree.cursor_item
        if node is None:
            return
        if node.replica is not None:
            self.desk.open_replica(node.replica.id)
        else:
            self.desk.filter_overview("replicas", f'cap:"{node.capability.capability}"')
