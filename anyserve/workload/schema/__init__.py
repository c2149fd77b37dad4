"""The scenario file as pydantic models: the only place where its keys are named."""

from anyserve.workload.schema.arrivals import Burst, Sessions, Trace
from anyserve.workload.schema.cluster import Capability, Cluster, Engine, Offering, Replica
from anyserve.workload.schema.faults import FAULT_ACTIONS, Fault
from anyserve.workload.schema.file import ScenarioFile, Slo, SloTimes
from anyserve.workload.schema.ingress import Ingress
from anyserve.workload.schema.sim import Sim
from anyserve.workload.schema.traffic import (
    Length,
    LognormalLength,
    Phase,
    Prefix,
    Stream,
    Traffic,
    UniformLength,
)
from anyserve.workload.schema.types import Section, format_duration, parse_duration

__all__ = [
    "FAULT_ACTIONS",
    "Burst",
    "Capability",
    "Cluster",
    "Engine",
    "Fault",
    "Ingress",
    "Length",
    "LognormalLength",
    "Offering",
    "Phase",
    "Prefix",
    "Replica",
    "ScenarioFile",
    "Section",
    "Sessions",
    "Sim",
    "Slo",
    "SloTimes",
    "Stream",
    "Trace",
    "Traffic",
    "UniformLength",
    "format_duration",
    "parse_duration",
]
