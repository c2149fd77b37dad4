"""Engine profiles by name or path: those that are shipped, and those that `calibrate` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from anyserve.core.engine.profile import FORMAT, EngineProfile
from anyserve.core.engine.step_time import StepTime, scaled_step_time
from anyserve.core.spec import ClusterSpec, EngineSpec
from anyserve.errors import UsageError
from anyserve.workload.plugins import PluginError, is_plugin_name, resolve_class
from anyserve.workload.problems import nearest

FALLBACK: Final = "smollm2-135m"
FALLBACK_EMBEDDER: Final = "minilm"
UNPROFILED: Final = frozenset({"echo", "none"})
"""Kinds of engines whose times are in no profile."""


class KnownEngine(NamedTuple):
    """What a scenario's engine is taken to be."""

    profile: EngineProfile
    step_time: StepTime
    guessed: bool
    """Nothing is known of the model: the profile is that of another, small one."""


@lru_cache(maxsize=1)
def shipped_profiles() -> Mapping[str, EngineProfile]:
    """The profiles in this package, by name."""
    folder = resources.files(__package__) / "profile_data"
    files = sorted((one for one in folder.iterdir() if one.name.endswith(".json")), key=str)
    profiles = (decode_profile(one.read_bytes(), one.name) for one in files)
    return {profile.name: profile for profile in profiles}


def is_profile_path(name: str) -> bool:
    """Whether `name` is a file rather than a shipped profile or a class."""
    return name.endswith(".json") or "/" in name


def placed_profile(name: str | None, directory: Path) -> str | None:
    """The `profile` of a scenario; a relative path is relative to the scenario's directory."""
    if name is None or not is_profile_path(name):
        return name
    return str(directory / name)


def load_profile(name: str) -> EngineProfile:
    """A shipped profile by name, or one in a file.

    Raises:
        UsageError: No such profile or file, or the file is none.
    """
    if is_profile_path(name):
        try:
            content = Path(name).read_bytes()
        except OSError as error:
            raise UsageError(
                f"The engine profile {name} cannot be read: {error.strerror}.",
                code="profile_missing",
                hint="Write one with: anyserve calibrate --model MODEL --out FILE",
            ) from error
        return decode_profile(content, name)
    known = shipped_profiles()
    if name not in known:
        near = nearest(name, list(known))
        raise UsageError(
            f"There is no engine profile '{name}'.",
            code="profile_unknown",
            hint=near or "Or give the path of a file.",
        )
    return known[name]


def decode_profile(content: bytes, where: str) -> EngineProfile:
    """Read the content of a profile file.

    Raises:
        UsageError: It is no profile, or one of another format.
    """
    try:
        profile = msgspec.json.decode(content, type=EngineProfile)
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"{where} is no engine profile: {error}", code="profile_invalid"
        ) from error
    if profile.format != FORMAT:
        raise UsageError(
            f"{where} has format {profile.format}, this version reads {FORMAT}.",
            code="profile_invalid",
            hint="Calibrate again.",
        )
    return profile


def known_profile(spec: EngineSpec) -> tuple[EngineProfile, bool]:
    """The `profile` of a scenario's engine, else that of its model, else that of a small model of
    the same kind, at its scales; and whether it is such a guess. Imports no class that
    `profile` may name.

    Raises:
        UsageError: `profile` names none.
    """
    profile, guessed = _profile_of(spec)
    return profile.scaled(spec.step_scale, spec.prefill_scale), guessed


def _profile_of(spec: EngineSpec) -> tuple[EngineProfile, bool]:
    name = spec.profile
    if name is not None and not is_plugin_name(name):
        return load_profile(name), False
    known = shipped_profiles()
    of_model = known.get(spec.model or "")
    if of_model is not None:
        return of_model, False
    fallback = FALLBACK_EMBEDDER if spec.task == "embed" else FALLBACK
    return known[fallback], name is None


def known_engine(spec: EngineSpec, scenario_dir: Path | None = None) -> KnownEngine:
    """What a scenario's engine is taken to be (`known_profile`), with the step-time model of the
    profile or, where `profile` is `pkg.mod:Class`, the user's.

    Raises:
        UsageError: `profile` names none.
        PluginError: `profile` names a class that cannot be used.
    """
    profile, guessed = known_profile(spec)
    if spec.profile is not None and is_plugin_name(spec.profile):
        own = users_step_time(spec.profile, scenario_dir)
        step_time = scaled_step_time(own, spec.step_scale, spec.prefill_scale)
        return KnownEngine(profile, step_time, guessed=guessed)
    return KnownEngine(profile, profile.step_time, guessed=guessed)


def told_of(cluster: ClusterSpec) -> list[str]:
    """Whose times the engines of a cluster take, and where those come from, in a few words each."""
    engines = {
        (engine.profile, engine.model, engine.task): engine
        for engine in (replica.engine for replica in cluster.replicas)
        if engine.kind not in UNPROFILED
    }
    return list(dict.fromkeys(_told(engine) for engine in engines.values()))


def _told(spec: EngineSpec) -> str:
    if spec.profile is not None and is_plugin_name(spec.profile):
        return spec.profile
    profile, _ = _profile_of(spec)
    if profile.published:
        return f"{profile.name} by published figures"
    processor = profile.machine.get("processor")
    return f"{profile.name} as measured on {processor}" if processor else profile.name


def users_step_time(name: str, scenario_dir: Path | None) -> StepTime:
    """A user's step-time model, made from its class `pkg.mod:Class`.

    Raises:
        PluginError: It cannot be found or made, or has no `step_ps`.
    """
    plugin = resolve_class(name, scenario_dir)
    made: StepTime = plugin.make()
    if not callable(getattr(made, "step_ps", None)):
        raise PluginError(
            f"{plugin.said} has no method step_ps(work)",
            code="plugin_shape",
            hint="See docs/engine.md on step-time models.",
        )
    return made
