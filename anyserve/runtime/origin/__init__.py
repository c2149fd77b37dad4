"""The origin side of a process: whoever submits requests and keeps them until they are settled."""

from anyserve.runtime.origin.client import Draft, Handle, OriginClient

__all__ = ["Draft", "Handle", "OriginClient"]
