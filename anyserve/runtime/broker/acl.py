"""Who may publish and subscribe where, as data, and as the access rules of two brokers.

Every publish right is a pattern with exactly one `+` (`sched/in` is granted as `+/in`), so that a
process can prove the very rule it depends on, on a topic nobody else uses: the `+` filled with the
reserved id `proof-<role>`. See `anyserve.runtime.broker.proof`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from anyserve.errors import UsageError
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.topics import covers, matches

_ID = re.compile(r"[a-z0-9-]{1,32}")


@dataclass(frozen=True, slots=True)
class RoleRules:
    """Topic patterns of one role below `anyserve/<cluster>/`."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


ROLE_RULES: Final[Mapping[Role, RoleRules]] = MappingProxyType(
    {
        Role.SCHEDULER: RoleRules(
            publish=("+/state", "replica/+/in", "origin/+/in", "event/+"),
            subscribe=(
                "sched/in",
                "sched/state",
                "replica/+/reg",
                "replica/+/gone",
                "origin/+/gone",
            ),
        ),
        Role.REPLICA: RoleRules(
            publish=("+/in", "replica/+/reg", "replica/+/gone", "origin/+/in", "event/+"),
            subscribe=("sched/state", "replica/+/in", "replica/+/entry"),
        ),
        Role.ORIGIN: RoleRules(
            publish=("+/in", "replica/+/entry", "origin/+/gone", "event/+"),
            subscribe=("sched/state", "origin/+/in"),
        ),
        Role.OBSERVER: RoleRules(publish=(), subscribe=("#",)),
    }
)


def proof_level(pattern: str, role: Role) -> str:
    """The topic (below the cluster) on which a role proves that it may publish `pattern`."""
    return pattern.replace("+", f"proof-{role}")


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The rules of one cluster. `rules` is replaced only to test what broken rules do."""

    cluster: str
    rules: Mapping[Role, RoleRules] = field(default_factory=lambda: ROLE_RULES)

    def __post_init__(self) -> None:
        """Refuse a name that would reach beyond its own topics."""
        if not _ID.fullmatch(self.cluster):
            message = f"cluster name {self.cluster!r} is not made of a-z, 0-9 and - (at most 32)"
            raise UsageError(message, code="cluster_name")

    @property
    def prefix(self) -> str:
        """What every topic of the cluster begins with."""
        return f"anyserve/{self.cluster}"

    def publish(self, role: Role) -> tuple[str, ...]:
        """Every filter a role may publish to."""
        return tuple(f"{self.prefix}/{pattern}" for pattern in self.rules[role].publish)

    def proofs(self, role: Role) -> dict[str, str]:
        """The proof topic of each publish right, by the right's filter."""
        return {
            f"{self.prefix}/{pattern}": f"{self.prefix}/{proof_level(pattern, role)}"
            for pattern in ROLE_RULES[role].publish
        }

    def subscribe(self, role: Role) -> tuple[str, ...]:
        """Every filter a role may subscribe to, its proof topics among them."""
        conversation = (f"{self.prefix}/{pattern}" for pattern in self.rules[role].subscribe)
        # One broker, one cluster, and `anyserve/#` is what people type to listen.
        everything = ("anyserve/#",) if role is Role.OBSERVER else ()
        return (*conversation, *self.proofs(role).values(), *everything)

    def may_publish(self, role: Role, topic: str) -> bool:
        """Whether the broker passes a message of this role on."""
        return any(matches(pattern, topic) for pattern in self.publish(role))

    def may_subscribe(self, role: Role, topic_filter: str) -> bool:
        """Whether the broker accepts a subscription of this role."""
        return any(covers(pattern, topic_filter) for pattern in self.subscribe(role))

    def nats(self, role: Role) -> dict[str, list[str]]:
        """The same as NATS subjects; `publish` and `subscribe` are the lists to allow."""
        # An empty list would allow everything, so there is always one subject nobody uses.
        publish = [f"anyserve.{self.cluster}.nothing"]
        publish += [s for pattern in self.publish(role) for s in _subjects(pattern)]
        subscribe = [s for pattern in self.subscribe(role) for s in _subjects(pattern)]
        return {"publish": publish, "subscribe": subscribe}

    def mosquitto(self, users: Mapping[Role, str]) -> str:
        """The same as mosquitto's `acl_file`."""
        return "\n".join(self._mosquitto_lines(users)) + "\n"

    def _mosquitto_lines(self, users: Mapping[Role, str]) -> Iterator[str]:
        for role, user in users.items():
            yield f"user {user}"
            for pattern in self.publish(role):
                yield f"topic write {pattern}"
            for pattern in self.subscribe(role):
                yield f"topic read {pattern}"


def _subjects(topic_filter: str) -> list[str]:
    """A filter as NATS subjects: `a/#` is `a` and all below it."""
    subject = topic_filter.replace("/", ".").replace("+", "*")
    if subject.endswith(".#"):
        parent = subject.removesuffix(".#")
        return [parent, f"{parent}.>"]
    return [subject]
