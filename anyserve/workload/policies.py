"""From a policy's name in the scenario to the policy, or to a sentence that says what is wrong."""

from __future__ import annotations

import inspect
import random
from pathlib import Path

from anyserve.core.policies import RoutingPolicy, shipped_policy
from anyserve.core.randomness import Rng
from anyserve.core.spec import SchedulerSpec
from anyserve.workload.plugins import Plugin, PluginError, is_plugin_name, resolve_class

SHAPE = "a policy is a class with __init__(self, rng, options) and choose(self, request, view)"


def load_policy(rules: SchedulerSpec, rng: Rng, scenario_dir: str | None) -> RoutingPolicy:
    """A shipped policy by its name, or a user's by `pkg.mod:Class`.

    Raises:
        ScenarioError: no policy of this name is shipped.
        PluginError: a user's cannot be found or made, or has no `choose(request, view)`.
    """
    if not is_plugin_name(rules.policy):
        return shipped_policy(rules.policy, rng, rules.policy_options)
    return _made(_resolved(rules, scenario_dir), rules, rng)


def try_policy(rules: SchedulerSpec, scenario_dir: str | None) -> Plugin | None:
    """Make a user's policy once, to find out before a cluster starts; None for a shipped one.

    Raises:
        PluginError: as `load_policy`.
    """
    if not is_plugin_name(rules.policy):
        return None
    found = _resolved(rules, scenario_dir)
    _made(found, rules, random.Random(rules.seed))  # noqa: S311 - as the scheduler does
    return found


def _resolved(rules: SchedulerSpec, scenario_dir: str | None) -> Plugin:
    return resolve_class(rules.policy, Path(scenario_dir) if scenario_dir else None)


def _made(found: Plugin, rules: SchedulerSpec, rng: Rng) -> RoutingPolicy:
    policy = found.make(rng, rules.policy_options)
    fault = _misfit(policy)
    if fault:
        raise PluginError(f"{found.said}: {fault}", code="plugin_shape", hint=SHAPE)
    made: RoutingPolicy = policy
    return made


def _misfit(policy: object) -> str:
    """What keeps this object from being a policy; "" where nothing does."""
    choose = getattr(policy, "choose", None)
    if not callable(choose):
        return "it has no method choose"
    if inspect.iscoroutinefunction(choose):
        return "choose is async, and a policy answers at once"
    try:
        inspect.signature(choose).bind(None, None)
    except TypeError:
        return f"choose{inspect.signature(choose)} does not take (request, view)"
    except ValueError:  # a callable that does not tell its signature
        return ""
    return ""
