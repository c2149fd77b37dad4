"""Checks of the `cluster` section."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from anyserve.core.capability import is_id
from anyserve.core.placement import GPU_COUNT_HINT, is_gpu_count
from anyserve.core.policies import SHIPPED
from anyserve.workload.checks.names import Names
from anyserve.workload.facts import concurrency_of, replica_ids, served_by_app, upgrades_of
from anyserve.workload.problems import Finding, nearest
from anyserve.workload.profiles import is_profile_path, shipped_profiles
from anyserve.workload.schema import ScenarioFile

RESERVED: Final = frozenset({"scheduler", "any", "broker"})
_PLUGIN: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_MAX_CHECKED_IDS: Final = 1000


def ladder_is_acyclic(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """One finding per circle, at its first capability in the file."""
    upgrades = upgrades_of(file)
    told: set[str] = set()
    for start in upgrades:
        way = [start]
        while (above := upgrades.get(way[-1])) is not None and above not in way:
            way.append(above)
        if above == start and not told.intersection(way):
            told.update(way)
            yield Finding(
                ("cluster", "capabilities", start, "upgrade"),
                "AS-S022",
                f"the upgrade ladder runs in a circle: {' -> '.join([*way, start])}",
                "every upgrade must lead to a stronger capability; remove one of these",
            )


def replica_ids_are_distinct(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """No two replicas have one id, and every id can stand in a topic."""
    first: dict[str, str] = {}
    for name, replica in file.cluster.replicas.items():
        loc = ("cluster", "replicas", name)
        if replica.id is not None and replica.count is None:
            message = "'id' is the pattern of several ids, and there is no 'count'"
            yield Finding((*loc, "id"), "AS-S023", message, "add count, or leave id out")
        if name in RESERVED:
            message = f"'{name}' means something else as an entry"
            yield Finding(loc, "AS-S023", message, "choose another id", at_key=True)
        yield from _clashes(name, replica_ids(name, replica), first)


def _clashes(name: str, ids: list[str], first: dict[str, str]) -> Iterator[Finding]:
    loc = ("cluster", "replicas", name)
    clash = next((one for one in ids if one in first), None)
    if clash is not None:
        message = f"the id '{clash}' is also one of '{first[clash]}'"
        yield Finding(loc, "AS-S023", message, "give one of them another id", at_key=True)
    too_long = next((one for one in ids if not is_id(one)), None)
    if too_long is not None:
        yield Finding(loc, "AS-S023", f"the id '{too_long}' is too long", at_key=True)
    for one in ids:
        first.setdefault(one, name)


def engines_are_complete(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """Something computes, and a real engine needs a model."""
    for name, replica in file.cluster.replicas.items():
        engine = replica.engine
        if set(served_by_app(replica)) == set(replica.capabilities):
            continue  # it has none, also where --engine names a kind for all
        if engine.kind == "none":
            message = f"'engine' is missing in cluster.replicas.{name}"
            hint = "say what computes: `engine: {kind: auto, model: smollm2-135m}`, or an app"
            yield Finding(("cluster", "replicas", name), "AS-S011", message, hint, at_key=True)
        if engine.kind in {"auto", "vllm"} and not engine.model:
            loc = ("cluster", "replicas", name, "engine")
            message = f"the {engine.kind} engine of '{name}' needs a model"
            hint = "add `model: smollm2-135m`, or take `kind: echo`"
            yield Finding(loc, "AS-S032", message, hint, at_key=True)


def apps_are_whole(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """An app is named as one, serves what its replica registers, and leaves no engine idle."""
    for name, replica in file.cluster.replicas.items():
        app = replica.app
        if app is None:
            continue
        loc = ("cluster", "replicas", name, "app")
        if not _PLUGIN.fullmatch(app.name):
            hint = "such as reranker:app, for `app = anyserve.App()` in reranker.py"
            yield Finding(loc, "AS-S040", f"'{app.name}' does not name an app", hint)
        for capability in app.serves:
            if capability not in replica.capabilities:
                message = f"the app serves '{capability}', and '{name}' does not register it"
                hint = nearest(capability, replica.capabilities) or "add it to capabilities"
                yield Finding((*loc, "serves"), "AS-S041", message, hint)
        # An engine that says only its kind may come from --engine, which goes to all replicas.
        described = replica.engine.model_fields_set - {"kind"}
        if described and set(served_by_app(replica)) == set(replica.capabilities):
            message = f"the app serves all of '{name}', and its engine would have nothing to do"
            hint = "say which capabilities are the app's: `app: {name: ..., serves: [...]}`"
            yield Finding(("cluster", "replicas", name, "engine"), "AS-S041", message, hint)


def slots_fit_the_engine(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """A slot that the engine cannot compute would wait inside it, unseen."""
    for name, replica in file.cluster.replicas.items():
        seqs, slots = replica.engine.max_num_seqs, concurrency_of(replica)
        if seqs is not None and slots > seqs:
            loc = ("cluster", "replicas", name, "concurrency")
            message = f"concurrency {slots} is more than the engine's max_num_seqs {seqs}"
            yield Finding(loc, "AS-S033", message, f"at most {seqs}, or raise max_num_seqs")


def limits_fit_the_engine(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """A registered limit beyond the engine's context would promise what it cannot hold."""
    for name, replica in file.cluster.replicas.items():
        context = replica.engine.max_model_len
        for capability, offering in replica.capabilities.items():
            limit = offering.limits.max_tokens
            if context is not None and limit is not None and limit > context:
                loc = ("cluster", "replicas", name, "capabilities", capability, "limits")
                message = f"max_tokens {limit} is more than the engine's max_model_len {context}"
                yield Finding((*loc, "max_tokens"), "AS-S033", message, f"at most {context}")


def gpus_can_be_given(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """One and a half GPUs are none that an engine can have."""
    for name, replica in file.cluster.replicas.items():
        if not is_gpu_count(replica.engine.gpus):
            loc = ("cluster", "replicas", name, "engine", "gpus")
            message = f"an engine cannot have {replica.engine.gpus:g} GPUs"
            yield Finding(loc, "AS-S013", message, GPU_COUNT_HINT)


def policy_exists(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """A shipped name, or one that could be a class; it is not imported here."""
    policy = file.cluster.scheduler.policy
    if policy not in SHIPPED and not _PLUGIN.fullmatch(policy):
        hint = nearest(policy, SHIPPED) or "your own class is named pkg.mod:Class"
        loc = ("cluster", "scheduler", "policy")
        yield Finding(loc, "AS-S036", f"no routing policy is called '{policy}'", hint)


def profiles_exist(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """A shipped name, a file, or what could be a class; neither is opened here."""
    for name, replica in file.cluster.replicas.items():
        profile = replica.engine.profile
        if profile is None or is_profile_path(profile) or _PLUGIN.fullmatch(profile):
            continue
        if profile not in shipped_profiles():
            loc = ("cluster", "replicas", name, "engine", "profile")
            hint = nearest(profile, shipped_profiles()) or "or the path of a file"
            yield Finding(loc, "AS-S045", f"no engine profile is called '{profile}'", hint)


def broker_url_is_clean(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """A host, maybe a port, and no password."""
    url = file.cluster.broker.url
    if url is None:
        return
    loc = ("cluster", "broker", "url")
    try:
        parts = urlsplit(url)
        has_host, _ = bool(parts.hostname), parts.port
    except ValueError as error:
        yield Finding(loc, "AS-S015", f"the broker's URL is not one: {error}")
        return
    if not has_host:
        yield Finding(loc, "AS-S015", "the broker's URL names no host", "mqtt://HOST:PORT")
    if parts.username is not None or parts.password is not None:
        message = "the broker's URL holds a user or password"
        yield Finding(loc, "AS-S037", message, "give them by environment or file, never here")


def overload_is_defined(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """Delegation by overload needs to know which wait is too long."""
    waits = [one.target_wait for one in file.cluster.capabilities.values()]
    if file.cluster.delegation.overload and not any(waits):
        loc = ("cluster", "delegation", "overload")
        message = "overload is on, and no capability says which wait is too long"
        yield Finding(loc, "AS-S039", message, "give a capability a target_wait, such as 500ms")


def liveness_is_ordered(file: ScenarioFile, _names: Names) -> Iterator[Finding]:
    """A replica must have the time for one heartbeat before it counts as lost."""
    scheduler = file.cluster.scheduler
    if scheduler.lost_after <= scheduler.heartbeat:
        loc = ("cluster", "scheduler", "lost_after")
        message = "lost_after must be longer than heartbeat, or every replica is lost at once"
        yield Finding(loc, "AS-S013", message)
