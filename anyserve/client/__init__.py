"""`Client` and `AsyncClient`: call capabilities of a cluster from any program."""

from anyserve.client.asynchronous import AsyncClient, AsyncStream
from anyserve.client.reply import Reply
from anyserve.client.synchronous import Client, Stream

__all__ = ["AsyncClient", "AsyncStream", "Client", "Reply", "Stream"]
