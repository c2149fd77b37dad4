"""The way of messages between processes: how long it takes, and what goes wrong on it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from anyserve.core.spec import NetworkSpec
from anyserve.sim.agenda import Doer
from anyserve.sim.kernel import Kernel


class Receiver(Doer):
    """A process that messages reach.

    Args:
        name: its id.
        inlet: takes a message that arrived.
    """

    def __init__(self, name: str, inlet: Callable[[Any], None]) -> None:
        self.name = name
        self._inlet = inlet

    def do(self, what: Any) -> None:
        """See `Doer`: a message arrives."""
        self._inlet(what)


class LinkTrouble:
    """What is wrong with one process's connection just now; shares are 0..1."""

    __slots__ = ("delay_ns", "drop", "duplicate", "held", "jitter_ns", "timed_out")

    def __init__(self) -> None:
        self.drop = self.duplicate = 0.0
        self.delay_ns = self.jitter_ns = 0
        self.held: list[tuple[Receiver, Any]] | None = None
        """While the network is cut: what TCP keeps, to be sent when it is back."""
        self.timed_out = False
        """Cut for so long that both ends gave the connection up."""

    @property
    def calm(self) -> bool:
        """Nothing is wrong."""
        return not (self.drop or self.duplicate or self.delay_ns or self.jitter_ns) and (
            self.held is None
        )


class Network:
    """Carries messages. Every draw comes from one seeded source, in the order of sending."""

    def __init__(self, kernel: Kernel, spec: NetworkSpec, seed: int) -> None:
        self._kernel = kernel
        self._spec = spec
        self._rng = random.Random(f"{seed}/network")  # noqa: S311 - not for secrets
        self._plain = not (spec.jitter_ns or spec.drop or spec.duplicate)
        self._last: dict[tuple[str, str], int] = {}
        self.troubles: dict[str, LinkTrouble] = {}
        """By the process whose connection it is; those without trouble are not in it."""
        self._lives = 0

    def send(self, sender: str, to: Receiver, message: Any) -> None:
        """Let a message arrive, later, once, never or twice."""
        if self._plain and not self.troubles:
            self._kernel.soon(to, message)
            return
        ways = [self.troubles[one] for one in (sender, to.name) if one in self.troubles]
        for way in ways:
            if way.held is not None:
                way.held.append((to, message))
                return
        for _ in range(self._copies(ways)):
            self._kernel.at(self._arrival(sender, to.name, ways), self._deliver, (
                to, message, self._lives,
            ))  # fmt: skip

    def forget(self) -> None:
        """The broker died: what is under way never arrives."""
        self._lives += 1
        self._kernel.clear_lane()
        for trouble in self.troubles.values():
            if trouble.held is not None:
                trouble.held.clear()

    def trouble(self, name: str) -> LinkTrouble:
        """The troubles of a process's connection, to be changed; `mend` when they are over."""
        return self.troubles.setdefault(name, LinkTrouble())

    def mend(self, name: str) -> None:
        """Forget troubles that are over; what was held is sent now."""
        trouble = self.troubles.get(name)
        if trouble is not None and trouble.calm:
            del self.troubles[name]

    def release(self, name: str, *, lost: bool) -> None:
        """The network is back: what was held goes on its way, or is lost with the connection."""
        trouble = self.troubles.get(name)
        if trouble is None or trouble.held is None:
            return
        held, trouble.held = trouble.held, None
        self.mend(name)
        for to, message in () if lost else held:
            self.send(name, to, message)

    def _deliver(self, sent: tuple[Receiver, Any, int]) -> None:
        to, message, life = sent
        if life == self._lives:
            to.do(message)

    def _copies(self, ways: list[LinkTrouble]) -> int:
        random_ = self._rng.random
        for share in (self._spec.drop, *(way.drop for way in ways)):
            if share and random_() < share:
                return 0
        copies = 1
        for share in (self._spec.duplicate, *(way.duplicate for way in ways)):
            if share and random_() < share:
                copies += 1
        return copies

    def _arrival(self, sender: str, receiver: str, ways: list[LinkTrouble]) -> int:
        spec, rng = self._spec, self._rng
        at = self._kernel.now + spec.latency_ns
        if spec.jitter_ns:
            at += round(rng.expovariate(1.0) * spec.jitter_ns)
        for way in ways:
            at += way.delay_ns
            if way.jitter_ns:
                at += int(rng.random() * way.jitter_ns)
        if spec.reorder:
            return at
        key = (sender, receiver)
        at = max(at, self._last.get(key, 0))
        self._last[key] = at
        return at
