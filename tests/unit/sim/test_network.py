"""The way of messages: latency, order, loss, repetition, and connections that are cut."""

from __future__ import annotations

from typing import Any

import pytest

from anyserve.core.spec import NetworkSpec
from anyserve.sim.kernel import Kernel
from anyserve.sim.network import Network, Receiver

LATENCY_NS = 1_000


class Ear:
    """Notes what it hears, and when."""

    def __init__(self, kernel: Kernel, name: str = "b") -> None:
        self.heard: list[tuple[int, Any]] = []
        self.receiver = Receiver(name, self.hear)
        self._kernel = kernel

    def hear(self, message: Any) -> None:
        self.heard.append((self._kernel.now, message))


def made(**spec: Any) -> tuple[Kernel, Network, Ear]:
    kernel = Kernel(LATENCY_NS)
    kernel.limit_ns = 10**12
    network = Network(kernel, NetworkSpec(latency_ns=LATENCY_NS, **spec), seed=1)
    return kernel, network, Ear(kernel)


def settle(kernel: Kernel) -> None:
    while kernel.run(1_000):
        pass


def test_a_message_takes_the_latency() -> None:
    kernel, network, ear = made()
    network.send("a", ear.receiver, "hello")
    settle(kernel)
    assert ear.heard == [(LATENCY_NS, "hello")]


@pytest.mark.parametrize("reorder", [False, True])
def test_jitter_keeps_the_order_of_a_pair_unless_told_otherwise(reorder: bool) -> None:
    kernel, network, ear = made(jitter_ns=50_000, reorder=reorder)
    for number in range(50):
        network.send("a", ear.receiver, number)
    settle(kernel)

    numbers = [number for _, number in ear.heard]
    assert sorted(numbers) == list(range(50))
    assert (numbers == sorted(numbers)) is not reorder


def test_a_share_is_lost_and_a_share_comes_twice() -> None:
    kernel, network, ear = made(drop=0.2, duplicate=0.1)
    for number in range(2_000):
        network.send("a", ear.receiver, number)
    settle(kernel)

    heard = [number for _, number in ear.heard]
    assert 0.75 < len(set(heard)) / 2_000 < 0.85
    assert 0.05 < (len(heard) - len(set(heard))) / len(set(heard)) < 0.15


def test_a_cut_connection_holds_messages_both_ways_until_it_is_back() -> None:
    kernel, network, ear = made()
    other = Ear(kernel, "a")
    network.trouble("b").held = []
    network.send("a", ear.receiver, "to")
    network.send("b", other.receiver, "from")
    kernel.run(1_000)
    assert (ear.heard, other.heard) == ([], [])

    network.release("b", lost=False)
    settle(kernel)
    assert [message for _, message in (*ear.heard, *other.heard)] == ["to", "from"]
    assert not network.troubles


def test_what_a_lost_connection_held_is_gone() -> None:
    kernel, network, ear = made()
    network.trouble("b").held = []
    network.send("a", ear.receiver, "to")
    network.release("b", lost=True)
    settle(kernel)
    assert ear.heard == []


@pytest.mark.parametrize("jitter_ns", [0, 10])
def test_a_broker_that_dies_takes_along_what_is_under_way(jitter_ns: int) -> None:
    kernel, network, ear = made(jitter_ns=jitter_ns)
    network.send("a", ear.receiver, "lost")
    network.forget()
    network.send("a", ear.receiver, "kept")
    settle(kernel)
    assert [message for _, message in ear.heard] == ["kept"]
