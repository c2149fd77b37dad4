"""`anyserve watch`: the conversation of a running cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.session import Session
from anyserve.cli.story import event_line, story_line
from anyserve.runtime.clusters import ClusterStore, state_dir
from anyserve.runtime.observer import observer_bus

_DISCONNECT: Final = "the cluster has ended"
_POLL_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """`count`: stop after so many messages."""

    cluster: str | None
    raw: bool = False
    events: bool = False
    count: int | None = None
    as_json: bool = False


def run_watch(session: Session, options: WatchOptions) -> int:
    """Print until the cluster ends, `count` is reached, or Ctrl-C.

    Raises:
        UsageError: no such cluster runs.
        StartError: its broker does not answer.
    """
    return asyncio.run(_Watch(session, options).run())


class _Watch:
    def __init__(self, session: Session, options: WatchOptions) -> None:
        self._session = session
        self._options = options
        name = session.setting("cluster", options.cluster)
        store = ClusterStore(state_dir(session.environ))
        self._record = store.find(None if name is None else str(name))
        self._messages: asyncio.Queue[tuple[float, str, bytes]] = asyncio.Queue()
        self._printed = 0
        self._interrupted = False

    async def run(self) -> int:
        bus = observer_bus(self._record, self._on_message)
        printing = asyncio.create_task(self._print_all(), name="print")
        watching = asyncio.create_task(self._until_gone(), name="until gone")
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._on_interrupt, watching)
        try:
            await bus.start()
            await bus.subscribe(f"{self._record.prefix}/#", 0)
            self._session.diagnostics.say(
                f"{self._record.name} at {self._record.broker.url}, topics {self._record.prefix}/#"
            )
            await asyncio.wait({printing, watching}, return_when=asyncio.FIRST_COMPLETED)
            if printing.done():
                printing.result()
            elif not self._interrupted:
                self._session.diagnostics.say(_DISCONNECT)
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            for task in (printing, watching):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await bus.close()
        # Ctrl-C is how one leaves a watch: it has done what was asked.
        return ExitCode.OK

    def _on_interrupt(self, watching: asyncio.Task[None]) -> None:
        self._interrupted = True
        watching.cancel()

    def _on_message(self, topic: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001 - the bus calls it so
        del retained
        self._messages.put_nowait((time.time(), topic, payload))

    async def _until_gone(self) -> None:
        while self._record.live:  # noqa: ASYNC110 - not our child: no event tells its end
            await asyncio.sleep(_POLL_S)

    async def _print_all(self) -> None:
        while self._options.count is None or self._printed < self._options.count:
            at_s, topic, payload = await self._messages.get()
            below = topic.removeprefix(f"{self._record.prefix}/")
            is_event = below.startswith("event/")
            if is_event and not self._options.events:
                continue
            self._print(at_s, below, payload, is_event=is_event)

    def _print(self, at_s: float, topic: str, payload: bytes, *, is_event: bool) -> None:
        output = self._session.output
        if self._options.raw:
            output.line(f"{topic} {payload.decode('utf-8', 'replace')}")
            self._printed += 1
            return
        at = datetime.fromtimestamp(at_s).astimezone().strftime("%H:%M:%S.%f")[:-3]
        for message in _elements(payload):
            if self._options.as_json:
                output.record({"at_s": at_s, "topic": topic, "message": message})
            elif is_event:
                output.line(event_line(at, message))
            else:
                output.line(story_line(at, topic, message))
            self._printed += 1


def _elements(payload: bytes) -> list[dict[str, Any]]:
    """The messages of a payload; what is none of ours is shown as it is."""
    if not payload:
        return [{"type": "(cleared)"}]
    try:
        decoded = json.loads(payload)
    except ValueError:
        return [{"type": "(foreign)", "payload": payload[:80].decode("utf-8", "replace")}]
    if not isinstance(decoded, list):
        return [{"type": "(foreign)", "payload": decoded}]
    return [
        one if isinstance(one, dict) else {"type": "(foreign)", "payload": one} for one in decoded
    ]
