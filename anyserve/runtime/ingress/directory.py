"""What can be asked for: from a request's names to a capability, its model, and its limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from anyserve.core.capability import Ladder, attributes_match
from anyserve.core.messages import Code, Offer
from anyserve.core.spec import ClusterSpec, EngineSpec, IngressSpec, ReplicaSpec
from anyserve.runtime.engines.base import Task
from anyserve.runtime.ingress.meanings import RefusedError

SCHEDULER: Final = "scheduler"
DEFAULT_MAX_TOKENS: Final = 256
"""Where a request names no bound, and the context's length is not known here."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes, and what will compute it (None: nobody offers it now).

    `engine` is that of the lowest rung that is offered: the one whose tokenizer counts.
    """

    capability: str
    attributes: Mapping[str, str]
    entry: str
    model: str
    engine: EngineSpec | None

    @property
    def task(self) -> Task | None:
        """What its engine does; None where that is not known."""
        return None if self.engine is None else Task(self.engine.task)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One line of the list of models."""

    name: str
    capability: str
    attributes: Mapping[str, str]
    max_tokens: int | None


class Directory:
    """The names of one cluster. `entry` is where requests go that name no entry."""

    def __init__(self, cluster: ClusterSpec, *, entry: str = SCHEDULER) -> None:
        self._cluster = cluster
        self._ingress = cluster.ingress or IngressSpec()
        self._entry = entry
        self._ladder = Ladder(cluster.ladder.upgrades)
        self._replicas = frozenset(replica.id for replica in cluster.replicas)
        self._capabilities = [one.name for one in cluster.capabilities]
        offered = {offer.capability for replica in cluster.replicas for offer in replica.offers}
        self._known = {*self._capabilities, *offered}
        apps = [replica.app for replica in cluster.replicas if replica.app is not None]
        self._handled = {capability for app in apps for capability in app.serves}
        self._engines = {replica.id: replica.engine for replica in cluster.replicas}
        self._limits: dict[tuple[str, frozenset[tuple[str, str]]], list[set[int | None]]] = {}
        self._routes: dict[tuple[str | None, str | None, Task | None], Route] = {}
        self._models = {one.name: one for one in self._list_models()}

    def is_handled(self, capability: str) -> bool:
        """Whether users' own code serves it somewhere."""
        return capability in self._handled

    @property
    def entry(self) -> str:
        """Where requests go that name no entry."""
        return self._entry

    @property
    def models(self) -> list[ModelEntry]:
        """All names that `model` may be, mapped ones first."""
        return list(self._models.values())

    def engine_of(self, replica: str) -> EngineSpec | None:
        """The engine of a replica of the scenario."""
        return self._engines.get(replica)

    @property
    def engines(self) -> list[EngineSpec]:
        """All engines of the scenario."""
        return list(self._engines.values())

    def route(
        self,
        *,
        capability: str | None = None,
        model: str | None = None,
        task: Task | None = None,
        entry: str | None = None,
    ) -> Route:
        """Where a request goes: by the capability it names, else its model, else its task.

        Raises:
            RefusedError: nobody knows the capability, the model or the entry, or no capability
                of the cluster does this task.
        """
        key = (capability, model, task)
        found = self._routes.get(key)
        if found is None:
            found = self._resolve(capability, model or None, task)
            if len(self._routes) < 1024:  # noqa: PLR2004 - names come from clients
                self._routes[key] = found
        if entry is None or entry == found.entry:
            return found
        self.check_entry(entry)
        return Route(found.capability, found.attributes, entry, found.model, found.engine)

    def check_entry(self, entry: str) -> None:
        """Nothing, where requests may enter there.

        Raises:
            RefusedError: the scenario has no such replica.
        """
        if entry != SCHEDULER and entry not in self._replicas:
            text = f"no replica '{entry}' to enter at"
            raise RefusedError(text, code="unknown_entry", param="x-anyserve-entry")

    def default_max_tokens(self, route: Route, prompt_tokens: int) -> int:
        """What fits beside a prompt of this length at the lowest rung that holds it."""
        for rung in self._limits_of(route):
            known = [limit for limit in rung if limit is not None and limit > prompt_tokens]
            if known:
                return max(known) - prompt_tokens
            if None in rung:
                return DEFAULT_MAX_TOKENS
        return 1

    def _limits_of(self, route: Route) -> list[set[int | None]]:
        """The limits that are registered for each rung from the route's on; None: without one."""
        key = (route.capability, frozenset(route.attributes.items()))
        found = self._limits.get(key)
        if found is None:
            found = self._limits[key] = [
                {offer.limits.max_tokens for offer, _ in self._offers(rung, route.attributes)}
                for rung in self._ladder.rungs(route.capability)
            ]
        return found

    def _resolve(self, capability: str | None, model: str | None, task: Task | None) -> Route:
        if capability is not None:
            if capability not in self._known:
                raise self._unknown_capability(capability)
            return self._to(capability, self._attributes_of(model), model)
        if model is not None:
            named = self._models.get(model)
            if named is None:
                text = f"the model '{model}' does not exist"
                raise RefusedError(text, code="model_not_found", param="model")
            return self._to(named.capability, named.attributes, model)
        return self._to(self._default(task), {}, None)

    def _attributes_of(self, model: str | None) -> Mapping[str, str]:
        named = self._models.get(model) if model is not None else None
        return {} if named is None else named.attributes

    def _to(self, capability: str, attributes: Mapping[str, str], model: str | None) -> Route:
        engine = next(self._engines_for(capability, attributes), None)
        shown = model or (engine.model if engine is not None else None) or capability
        return Route(capability, attributes, self._entry, shown, engine)

    def _default(self, task: Task | None) -> str:
        wanted = self._ingress.embed if task is Task.EMBED else self._ingress.generate
        if wanted is not None:
            return wanted
        for name in self._capabilities:
            engine = next(self._engines_for(name, {}), None)
            if engine is not None and (task is None or Task(engine.task) is task):
                return name
        what = "embeds" if task is Task.EMBED else "generates"
        raise RefusedError(f"no capability here {what} text", code=Code.UNKNOWN_CAPABILITY.value)

    def _engines_for(self, capability: str, attributes: Mapping[str, str]) -> Iterator[EngineSpec]:
        for rung in self._ladder.rungs(capability):
            for _, engine in self._offers(rung, attributes):
                yield engine

    def _offers(
        self, capability: str, attributes: Mapping[str, str]
    ) -> Iterator[tuple[Offer, EngineSpec]]:
        """Offers of engines; what handlers serve is no model's."""
        for replica in self._cluster.replicas:
            for offer in replica.offers:
                if offer.capability != capability or _handles(replica, capability):
                    continue
                if attributes_match(attributes, offer.attributes):
                    yield offer, replica.engine

    def _list_models(self) -> Iterator[ModelEntry]:
        """Mapped names; models of engines, each at its lowest rung; names of capabilities."""
        listed: set[str] = set()
        for name, route in self._ingress.models.items():
            listed.add(name)
            yield self._entry_of(name, route.capability, route.attributes)
        for capability in self._capabilities:
            engine = next((engine for _, engine in self._offers(capability, {})), None)
            if engine is not None and engine.model is not None and engine.model not in listed:
                listed.add(engine.model)
                yield self._entry_of(engine.model, capability, {})
        for capability in self._capabilities:
            if capability not in listed:
                listed.add(capability)
                yield self._entry_of(capability, capability, {})

    def _entry_of(self, name: str, capability: str, attributes: Mapping[str, str]) -> ModelEntry:
        limits = [
            offer.limits.max_tokens
            for rung in self._ladder.rungs(capability)
            for offer, _ in self._offers(rung, attributes)
            if offer.limits.max_tokens is not None
        ]
        return ModelEntry(name, capability, attributes, max(limits, default=None))

    def _unknown_capability(self, capability: str) -> RefusedError:
        known = ", ".join(sorted(self._known))
        return RefusedError(
            f"nobody knows the capability '{capability}'; there are {known}",
            code=Code.UNKNOWN_CAPABILITY.value,
            param="x-anyserve-capability",
        )


def _handles(replica: ReplicaSpec, capability: str) -> bool:
    """Whether a replica serves it by its app, not by its engine."""
    return replica.app is not None and capability in replica.app.serves
