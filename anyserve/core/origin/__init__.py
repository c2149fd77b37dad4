"""The origin: owns its requests, keeps every token until they are settled, decides the outcome."""

from anyserve.core.origin.machine import Origin, OriginInput

__all__ = ["Origin", "OriginInput"]
