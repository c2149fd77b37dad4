"""Which GPUs each engine gets: arithmetic over what is asked and what there is, and no I/O.

An engine that asks for whole GPUs has them alone (two or more: tensor parallel). One that asks for
a fraction gets that share of one GPU's memory; fractions are packed first-fit-decreasing, so that
whole GPUs stay free. The same input gives the same placement.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from anyserve.core.spec import ReplicaSpec
from anyserve.errors import MissingDependencyError, StartError, UsageError

_GIB: Final = 1 << 30
_SPARE: Final = 0.1
"""Part of a GPU's memory that no engine is given: what vLLM itself leaves where nothing is said."""
_SPARE_BYTES: Final = _GIB * 3 // 4
"""The same per engine, for small GPUs: the CUDA context and what the driver keeps."""
_OUTSIDE_BYTES: Final = _GIB // 2
"""What an engine takes outside its share: mostly its CUDA context."""
_TOLERANCE: Final = 1e-9
_LEAST: Final = 0.01
_STEPS: Final = 10_000
"""Shares that we choose are rounded down to this part of a GPU."""


GPU_COUNT_HINT: Final = f"a whole number of GPUs, or a share of one, from {_LEAST:g} to below 1"


def is_gpu_count(gpus: float) -> bool:
    """Whether an engine can have so many: none, a share of one, or a whole number."""
    if not math.isfinite(gpus) or gpus < 0:
        return False
    return gpus == 0 or _LEAST <= gpus <= 1 or float(gpus).is_integer()


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """One GPU as it is now. `index` is its place on the PCI bus, as nvidia-smi counts."""

    index: int
    memory_bytes: int
    free_bytes: int
    name: str = "GPU"


class Devices(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine may use. `share` is of each of these GPUs: 1.0, or below it of a single one.

    `memory_share` is the part of a GPU's whole memory that the engine may fill: `share` of what is
    left when something is spared for CUDA itself.
    """

    indices: tuple[int, ...]
    share: float
    memory_share: float

    @property
    def visible(self) -> str:
        """The value of CUDA_VISIBLE_DEVICES."""
        return ",".join(map(str, self.indices))


@dataclass(frozen=True, slots=True)
class Placement:
    """Replica id -> its devices; replicas that need none are not in it."""

    devices: Mapping[str, Devices] = field(default_factory=dict)

    def of(self, replica: str) -> Devices | None:
        """The devices of a replica, None where it needs none."""
        return self.devices.get(replica)


def plan_placement(
    replicas: Sequence[ReplicaSpec], gpus: Sequence[GpuInfo], *, share_rest: bool = False
) -> Placement:
    """Give every replica the GPUs that its engine asks for; `gpus` in the order of preference.

    `share_rest`: replicas that ask for none cannot do without (a CUDA build of vLLM), and share
    evenly what the others leave; each gets at most one GPU.

    Raises:
        UsageError: an engine asks for a number of GPUs that nobody can give, such as 1.5.
        MissingDependencyError: GPUs are needed and there are none.
        StartError: they do not fit; the message shows the sum.
    """
    asking = [one for one in replicas if _asked(one) > 0]
    rest = [one for one in replicas if _asked(one) == 0] if share_rest else []
    if not asking and not rest:
        return Placement()
    if not gpus:
        raise _no_gpu([one.id for one in (*asking, *rest)])
    devices = [_Device(gpu) for gpu in gpus]
    left = [one for one in sorted(asking, key=_size_order) if not _put(one, devices)]
    if left or not _put_evenly(sorted(one.id for one in rest), devices):
        raise _no_room(replicas, [one.id for one in left or rest], devices, share_rest)
    return _placement(devices)


@dataclass(slots=True)
class _Device:
    """A GPU and who has which share of it."""

    gpu: GpuInfo
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def taken(self) -> float:
        return sum(self.shares.values())

    def fits(self, share: float) -> bool:
        """Whether one more engine can have this share."""
        return share <= self.room(1) + _TOLERANCE

    def room(self, engines: int) -> float:
        """The share that so many more engines can have together; not above 0: none."""
        count = len(self.shares) + engines
        usable = _usable_bytes(self.gpu, count)
        if usable <= 0:
            return 0.0
        by_memory = (self.gpu.free_bytes - count * _OUTSIDE_BYTES) / usable
        return min(1.0, by_memory) - self.taken

    def times(self, share: float, at_most: int) -> int:
        """How many more engines of this share fit."""
        counts = range(at_most, 0, -1)
        fitting = (count for count in counts if count * share <= self.room(count) + _TOLERANCE)
        return next(fitting, 0)


def _asked(replica: ReplicaSpec) -> float:
    gpus = replica.engine.gpus
    if not is_gpu_count(gpus):
        message = f"the engine of {replica.id} asks for {gpus:g} GPUs"
        raise UsageError(message, code="bad_gpus", hint=GPU_COUNT_HINT)
    return gpus


def _size_order(replica: ReplicaSpec) -> tuple[float, str]:
    return (-replica.engine.gpus, replica.id)


def _put(replica: ReplicaSpec, devices: Sequence[_Device]) -> bool:
    """Give the replica the first devices that have room; change nothing where they are too few."""
    gpus = replica.engine.gpus
    share, count = min(gpus, 1.0), max(1, int(gpus))
    chosen = [device for device in devices if device.fits(share)][:count]
    if len(chosen) < count:
        return False
    for device in chosen:
        device.shares[replica.id] = share
    return True


def _put_evenly(ids: Sequence[str], devices: Sequence[_Device]) -> bool:
    """Give all of them the largest share that all of them can have, spread over the devices."""
    if not ids:
        return True
    share = _even_share(len(ids), devices)
    if share <= 0:
        return False
    places = [device.times(share, len(ids)) for device in devices]
    rounds = [(turn, place) for place, times in enumerate(places) for turn in range(times)]
    for replica, (_, place) in zip(ids, sorted(rounds), strict=False):
        devices[place].shares[replica] = share
    return True


def _even_share(count: int, devices: Sequence[_Device]) -> float:
    rooms = {device.room(n) / n for device in devices for n in range(1, count + 1)}
    for room in sorted(rooms, reverse=True):
        share = math.floor(room * _STEPS + _TOLERANCE) / _STEPS
        if share > 0 and sum(device.times(share, count) for device in devices) >= count:
            return share
    return 0.0


def _usable_bytes(gpu: GpuInfo, engines: int) -> float:
    return gpu.memory_bytes - max(gpu.memory_bytes * _SPARE, engines * _SPARE_BYTES)


def _placement(devices: Iterable[_Device]) -> Placement:
    found: dict[str, list[_Device]] = {}
    for device in devices:
        for replica in device.shares:
            found.setdefault(replica, []).append(device)
    return Placement({replica: _devices_of(replica, found[replica]) for replica in sorted(found)})


def _devices_of(replica: str, devices: Sequence[_Device]) -> Devices:
    share = devices[0].shares[replica]
    usable = min(
        _usable_bytes(device.gpu, len(device.shares)) / device.gpu.memory_bytes
        for device in devices
    )
    return Devices(
        indices=tuple(device.gpu.index for device in devices),
        share=share,
        memory_share=math.floor(share * usable * _STEPS + _TOLERANCE) / _STEPS,
    )


# --- refusals ----------------------------------------------------------------------------------


def _no_gpu(ids: Sequence[str]) -> MissingDependencyError:
    verb = "needs a GPU" if len(ids) == 1 else "need GPUs"
    return MissingDependencyError(
        f"{', '.join(ids)} {verb}, and there is none that this process may use",
        code="no_gpu",
        hint="run where there is an NVIDIA GPU with its driver (CUDA_VISIBLE_DEVICES may hide it), "
        "or with --engine model, or on the CPU with --set 'cluster.replicas[*].engine.gpus=0'",
    )


def _no_room(
    replicas: Sequence[ReplicaSpec],
    left: Sequence[str],
    devices: Sequence[_Device],
    share_rest: bool,  # noqa: FBT001 - handed on
) -> StartError:
    terms = [f"{one.id} {one.engine.gpus:g}" for one in replicas if one.engine.gpus > 0]
    total = sum(one.engine.gpus for one in replicas)
    rest = [one.id for one in replicas if one.engine.gpus == 0] if share_rest else []
    asked = f"{' + '.join(terms)} = {total:g} of {len(devices)}" if terms else "none by number"
    if rest:
        asked += f", and a share each for {', '.join(rest)}"
    message = (
        f"not enough GPU memory: GPUs asked: {asked}; no room for {', '.join(left)}; "
        f"{'; '.join(map(_device_line, devices))} "
        f"(each engine: its share of the memory, and {_OUTSIDE_BYTES / _GIB:g} GiB for CUDA)"
    )
    hint = "ask for smaller shares (gpus), run fewer replicas, or end what else uses the GPUs"
    return StartError(message, code="gpu_memory", hint=hint)


def _device_line(device: _Device) -> str:
    gpu = device.gpu
    sizes = f"{gpu.free_bytes / _GIB:.1f} of {gpu.memory_bytes / _GIB:.1f} GiB free"
    terms = " + ".join(f"{name} {share:g}" for name, share in device.shares.items())
    taken = f"{terms} = {device.taken:g} placed" if terms else "nothing placed"
    return f"GPU {gpu.index} ({gpu.name}, {sizes}): {taken}"
