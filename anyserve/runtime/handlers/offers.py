"""What replicas register of their apps: the scenario's offers, and the handlers' attributes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from anyserve.core.messages import Offer
from anyserve.core.spec import ClusterSpec, ReplicaSpec
from anyserve.runtime.handlers.trial import AppFacts, try_app
from anyserve.workload.plugins import PluginError


async def try_apps(
    cluster: ClusterSpec, directory: str
) -> tuple[ClusterSpec, Mapping[str, AppFacts]]:
    """Try every app of a cluster, side by side, before anything is started.

    Returns the cluster with the handlers' attributes in its offers, and what each app is.

    Raises:
        PluginError: one cannot be used, and why.
    """
    serves: dict[str, dict[str, None]] = {}
    for replica in cluster.replicas:
        if replica.app is not None:
            serves.setdefault(replica.app.name, {}).update(dict.fromkeys(replica.app.serves))
    found = await asyncio.gather(
        *(try_app(name, directory, wanted) for name, wanted in serves.items())
    )
    facts = dict(zip(serves, found, strict=True))
    replicas = tuple(_with_attributes(replica, facts) for replica in cluster.replicas)
    return msgspec.structs.replace(cluster, replicas=replicas), facts


def _with_attributes(replica: ReplicaSpec, facts: Mapping[str, AppFacts]) -> ReplicaSpec:
    if replica.app is None:
        return replica
    declared = {one.capability: one.attributes for one in facts[replica.app.name].serves}
    offers = tuple(
        _merged(replica, offer, declared.get(offer.capability, {}))
        if offer.capability in replica.app.serves
        else offer
        for offer in replica.offers
    )
    return msgspec.structs.replace(replica, offers=offers)


def _merged(replica: ReplicaSpec, offer: Offer, declared: Mapping[str, str]) -> Offer:
    for key, value in declared.items():
        said = offer.attributes.get(key, value)
        if said != value:
            assert replica.app is not None
            message = (
                f"the handler of {offer.capability} in '{replica.app.name}' has {key}={value}, "
                f"and the scenario registers it at {replica.id} with {key}={said}"
            )
            hint = "leave the attribute out of one of them"
            raise PluginError(message, code="handler_attributes", hint=hint)
    return msgspec.structs.replace(offer, attributes={**declared, **offer.attributes})
