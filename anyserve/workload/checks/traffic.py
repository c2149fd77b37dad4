"""Checks of the `traffic` section: something is sent, and something can serve it."""

from __future__ import annotations

from collections.abc import Iterator

from anyserve.workload.checks.names import Names
from anyserve.workload.facts import rungs, servers_of, shortest, upgrades_of
from anyserve.workload.problems import Finding
from anyserve.workload.schema import (
    LognormalLength,
    ScenarioFile,
    Stream,
    UniformLength,
)
from anyserve.workload.yaml_nodes import Loc


def something_is_sent(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """At least one stream has a rate above 0 in some phase."""
    traffic = file.traffic
    rates = (
        phase.rates.get(name, (stream.rate or 0.0) * phase.scale)
        for phase in traffic.phases
        for name, stream in traffic.streams.items()
    )
    without = any(one.concurrency or one.trace for one in traffic.streams.values())
    if not without and not any(rate > 0 for rate in rates):
        message = "no request is ever sent: every rate is 0 in every phase"
        yield Finding(("traffic",), "AS-S029", message, "give a stream a rate", at_key=True)


def every_stream_is_served(file: ScenarioFile, names: Names) -> Iterator[Finding]:
    """Some replica offers the capability, or one above it, for requests of that length."""
    for name, stream in file.traffic.streams.items():
        if stream.capability in names.capabilities:
            yield from _unserved(file, stream, ("traffic", "streams", name))


def _unserved(file: ScenarioFile, stream: Stream, loc: Loc) -> Iterator[Finding]:
    servers = servers_of(file, stream)
    if not servers:
        ladder = " or ".join(f"'{rung}'" for rung in rungs(upgrades_of(file), stream.capability))
        wanted = "".join(f" with {key}: {value}" for key, value in stream.attributes.items())
        message = f"no replica offers {ladder}{wanted}"
        hint = "add it to the capabilities of a replica, or give the capability an upgrade"
        yield Finding((*loc, "capability"), "AS-S024", message, hint)
        return
    if stream.trace is not None:
        return
    fewest = shortest(stream.prompt_tokens) + shortest(stream.output_tokens)
    limits = [server.limit for server in servers]
    if all(limit is not None and fewest > limit for limit in limits):
        largest = max(limit for limit in limits if limit is not None)
        message = (
            f"even the shortest request has {fewest} tokens, and no replica takes over {largest}"
        )
        hint = "shorten prompt_tokens and output_tokens, or raise max_model_len"
        yield Finding((*loc, "prompt_tokens"), "AS-S028", message, hint)


def tasks_agree(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """All that may serve a stream do the same, and the stream says how much it wants of it."""
    for name, stream in file.traffic.streams.items():
        loc = ("traffic", "streams", name)
        servers = servers_of(file, stream)
        tasks = {server.task for server in servers}
        yield from _wants_what_it_may(stream, loc, handled=tasks == {"handle"})
        if len(tasks) > 1 and "handle" in tasks:
            handles = next(server for server in servers if server.task == "handle")
            message = f"a handler of '{handles.replica}' may serve this stream, or an engine"
            yield Finding((*loc, "capability"), "AS-S030", message, "use two capabilities")
        elif len(tasks) > 1:
            embeds = next(server for server in servers if server.task == "embed")
            message = f"'{embeds.replica}' embeds, and others that may serve this stream generate"
            yield Finding((*loc, "capability"), "AS-S030", message, "use two capabilities")
        elif stream.trace is not None:
            continue
        elif tasks == {"generate"} and stream.output_tokens is None:
            message = f"'output_tokens' is missing in traffic.streams.{name}"
            yield Finding(loc, "AS-S031", message, "how many tokens to generate", at_key=True)
        elif tasks == {"embed"} and stream.output_tokens is not None:
            message = "an embedding has no output tokens"
            yield Finding((*loc, "output_tokens"), "AS-S031", message, "leave it out", at_key=True)


def arrivals_are_whole(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """Each stream has one way of coming, and what belongs to it."""
    for name, stream in file.traffic.streams.items():
        loc = ("traffic", "streams", name)
        ways = {
            "rate": stream.rate is not None,
            "concurrency": stream.concurrency is not None,
            "trace": stream.trace is not None,
        }
        chosen = [way for way, is_set in ways.items() if is_set]
        hint = "requests per second, users who wait for answers, or a file"
        if not chosen:
            message = (
                f"one of 'rate', 'concurrency' and 'trace' is needed in traffic.streams.{name}"
            )
            yield Finding(loc, "AS-S042", message, hint, at_key=True)
        elif len(chosen) > 1:
            message = f"'{chosen[0]}' and '{chosen[1]}' exclude each other"
            yield Finding((*loc, chosen[1]), "AS-S042", message, hint, at_key=True)
        yield from _misplaced(stream, loc)


def _misplaced(stream: Stream, loc: Loc) -> Iterator[Finding]:
    """Keys of one way of coming beside another."""
    bursty, closed = stream.arrivals == "bursty", stream.concurrency is not None
    if bursty and stream.burst is None:
        message, hint = "bursty arrivals need 'burst'", "burst: {on: 5s, off: 15s}"
        yield Finding((*loc, "arrivals"), "AS-S042", message, hint)
    wrong = {
        "burst": stream.burst is not None and not bursty,
        "think": stream.think > 0 and not closed,
        "requests": stream.requests is not None and not closed,
        "cv": stream.cv != 1.0 and stream.arrivals != "gamma",
    }
    needed = {"burst": "arrivals: bursty", "cv": "arrivals: gamma"}
    for key, is_wrong in wrong.items():
        if is_wrong:
            message = f"'{key}' goes with {needed.get(key, 'concurrency')}"
            yield Finding((*loc, key), "AS-S042", message, at_key=True)
    if stream.sessions is not None and (stream.trace is not None or closed):
        message = "sessions come at a rate"
        yield Finding((*loc, "sessions"), "AS-S042", message, at_key=True)


def _wants_what_it_may(stream: Stream, loc: Loc, *, handled: bool) -> Iterator[Finding]:
    """Engines take prompts, handlers take payloads."""
    if not handled and stream.prompt_tokens is None and stream.trace is None:
        message = f"'prompt_tokens' is missing in {'.'.join(map(str, loc))}"
        yield Finding(loc, "AS-S011", message, "how long the prompts are", at_key=True)
    if not handled and stream.payload is not None:
        message = "an engine serves this stream, and takes prompts"
        yield Finding((*loc, "payload"), "AS-S031", message, "leave payload out")
    for field in ("prompt_tokens", "output_tokens", "prefix"):
        if handled and getattr(stream, field) is not None:
            message = "a handler serves this stream, and takes a payload"
            yield Finding((*loc, field), "AS-S031", message, "leave it out")


def lengths_are_ordered(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """The smallest length is not above the largest."""
    for name, stream in file.traffic.streams.items():
        for field in ("prompt_tokens", "output_tokens"):
            length = getattr(stream, field)
            loc = ("traffic", "streams", name, field)
            if isinstance(length, UniformLength):
                low, high, inner = length.uniform.min, length.uniform.max, "uniform"
            elif isinstance(length, LognormalLength):
                low, high, inner = length.lognormal.min, length.lognormal.max, "lognormal"
            else:
                continue
            if low > high:
                message = f"min {low} is above max {high}"
                yield Finding((*loc, inner, "min"), "AS-S034", message)


def prefixes_fit(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """A shared beginning is shorter than the shortest prompt, or it would not be shared."""
    for name, stream in file.traffic.streams.items():
        fewest = shortest(stream.prompt_tokens)
        if stream.prefix is not None and stream.prefix.tokens > fewest:
            loc = ("traffic", "streams", name, "prefix", "tokens")
            message = f"{stream.prefix.tokens} shared tokens, and a prompt may have only {fewest}"
            yield Finding(loc, "AS-S034", message, "shorten the prefix, or raise the prompt's min")
