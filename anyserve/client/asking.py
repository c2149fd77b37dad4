"""What both clients send, and when they ask again. No I/O."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict
from urllib.parse import quote

from anyserve.app import typed
from anyserve.errors import CallError, UsageError
from anyserve.version import __version__

URL_ENV: Final = "ANYSERVE_URL"
KEY_ENV: Final = "ANYSERVE_API_KEY"
DEFAULT_URL: Final = "http://127.0.0.1:8000"
CONNECT_S: Final = 5.0
GRACE_S: Final = 2.0
"""The server's word on a deadline is waited for so much longer than the deadline."""
NOT_BEGUN: Final = frozenset(
    {"queue_full", "overloaded", "no_replica", "draining", "ingress_full", "too_many_connections",
     "no_scheduler", "unreachable"}
)  # fmt: skip
"""Nothing was done yet where a call ended with these: asking again is safe."""
_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the cluster is and how patient we are. Shared by all calls of a client."""

    url: str
    api_key: str | None
    timeout_s: float | None
    max_retries: int

    @classmethod
    def of(
        cls,
        url: str | None,
        api_key: str | None,
        timeout_s: float | None,
        max_retries: int,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """Settings from arguments, else from the environment.

        Raises:
            UsageError: no URL of HTTP, or a number that makes no sense.
        """
        environ = os.environ if environ is None else environ
        url = (url or environ.get(URL_ENV) or DEFAULT_URL).rstrip("/").removesuffix("/v1")
        if not url.startswith(("http://", "https://")):
            hint = f"such as {DEFAULT_URL}, the HTTP door of an ingress"
            raise UsageError(f"'{url}' is no URL of HTTP", code="client_url", hint=hint)
        if timeout_s is not None and timeout_s <= 0:
            raise UsageError(f"timeout_s is {timeout_s}, it must be above 0", code="client_timeout")
        if max_retries < 0:
            raise UsageError(f"max_retries is {max_retries}", code="client_retries")
        key = api_key if api_key is not None else environ.get(KEY_ENV)
        return cls(url=url, api_key=key, timeout_s=timeout_s, max_retries=max_retries)


class Options(TypedDict, total=False):
    """How one call is asked; what is not given is the client's or the cluster's default.

    `attributes` are what the replica must have, such as `{"model": "x"}`. `timeout_s` is the
    deadline, for the cluster too. Lower `priority` goes first, 0 by default. `entry` names the
    replica to enter at. Calls with the same `affinity` go to the same replica where possible.
    """

    attributes: Mapping[str, str] | None
    timeout_s: float | None
    priority: int | None
    entry: str | None
    affinity: str | None


@dataclass(slots=True)
class Ask:
    """One call on its way: its body, its budget, its tries.

    Args:
        settings, capability, payload, options: what is asked.
        stream: items are wanted as they are made.
        clock, chance: injected for tests.

    Raises:
        InvalidRequestError: the payload cannot be said in JSON.
    """

    settings: Settings
    capability: str
    payload: Any
    options: Options
    stream: bool = False
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random
    body: bytes = field(init=False)
    _end_s: float | None = field(init=False)
    _tries: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.body = typed.encode(self.payload)
        timeout_s = self.options.get("timeout_s")
        timeout_s = self.settings.timeout_s if timeout_s is None else timeout_s
        self._end_s = None if timeout_s is None else self.clock() + timeout_s

    @property
    def url(self) -> str:
        """Where it is sent to."""
        return f"{self.settings.url}/v1/capabilities/{quote(self.capability, safe='')}"

    @property
    def left_s(self) -> float | None:
        """What is left of its budget, at least a millisecond; None: it has none."""
        return None if self._end_s is None else max(0.001, self._end_s - self.clock())

    def headers(self) -> dict[str, str]:
        """The headers of the next try; the deadline goes as what is left of it."""
        left_s, key, options = self.left_s, self.settings.api_key, self.options
        priority, attributes = options.get("priority"), options.get("attributes")
        known = {
            "content-type": "application/json",
            "accept": "text/event-stream" if self.stream else "application/json",
            "user-agent": f"anyserve-python/{__version__}",
            "authorization": f"Bearer {key}" if key else None,
            "x-anyserve-timeout-ms": None if left_s is None else str(max(1, round(left_s * 1000))),
            "x-anyserve-priority": None if priority is None else str(priority),
            "x-anyserve-entry": options.get("entry"),
            "x-anyserve-affinity": options.get("affinity"),
            "x-anyserve-attributes": json.dumps(dict(attributes)) if attributes else None,
        }
        return {name: value for name, value in known.items() if value is not None}

    def timeout(self) -> dict[str, float | None]:
        """The four limits of httpx: the server keeps the deadline, we stand behind it."""
        left_s = self.left_s
        read_s = None if left_s is None else left_s + GRACE_S
        return {"connect": CONNECT_S, "read": read_s, "write": read_s, "pool": read_s}

    def wait_before_retry(self, error: CallError) -> float | None:
        """Seconds until it may be asked again; None: it may not, or it would be too late.

        As long as the server says, else doubling from 0.2 s; up to a quarter more, by chance, so
        that those who were turned away together do not come back together.
        """
        self._tries += 1
        if error.code not in NOT_BEGUN or self._tries > self.settings.max_retries:
            return None
        wait_s = _FIRST_WAIT_S * 2 ** (self._tries - 1)
        if error.retry_after_ms is not None:
            wait_s = error.retry_after_ms / 1000
        wait_s = min(wait_s, _LONGEST_WAIT_S) * (1 + self.chance() / 4)
        left_s = self.left_s
        return wait_s if left_s is None or wait_s < left_s else None


def unreachable(ask: Ask, error: Exception) -> CallError:
    """Nobody answers at the address."""
    text = str(error) or type(error).__name__
    return CallError(
        f"{ask.capability}: no answer from {ask.settings.url}: {text}",
        code="unreachable",
        hint="is the cluster up, with an HTTP door? anyserve status shows where",
    )


def broken_off(ask: Ask, error: Exception) -> CallError:
    """The connection broke after the request had left: it may have been done."""
    text = str(error) or type(error).__name__
    return CallError(f"{ask.capability}: the connection broke: {text}", code="connection_lost")


def too_late(ask: Ask) -> CallError:
    """The deadline passed, and even the server did not say so."""
    return CallError(f"{ask.capability}: no answer in time", code="deadline_exceeded")
