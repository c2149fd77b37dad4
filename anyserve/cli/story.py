"""One MQTT message as a line that people read: who says what to whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from anyserve.telemetry.text import clean

_MOST_CHARS: Final = 100
_FROM_REPLICA: Final = frozenset(
    {
        "delegate", "refuse", "return", "credit", "holding", "admitted", "started", "ended",
        "frame", "keep_alive", "unknown_attempt", "registration",
    }
)  # fmt: skip
_HIDDEN: Final = frozenset(
    {
        "type", "v", "request", "body", "id", "boot", "incarnation", "epoch", "replica", "load",
        "times",
    }
)  # fmt: skip
_REQUEST_PARTS: Final = ("capability", "prompt_tokens", "max_tokens", "attributes", "priority")


def who(topic: str, message: Mapping[str, Any]) -> tuple[str, str]:
    """Sender and receiver of a message, from its topic below the cluster and what it is."""
    kind, name, place = (*topic.split("/"), "", "", "")[:3]
    said = str(message.get("type", "?"))
    if kind == "origin" and not place.startswith("gone") and said in _FROM_REPLICA:
        return str(message.get("replica", "a replica")), name
    known = {
        "sched/in": (_speaker(message), "scheduler"),
        "sched/state": ("scheduler", "all"),
        f"{kind}/{name}/reg": (name, "all"),
        f"{kind}/{name}/gone": ("broker", "scheduler"),
        f"{kind}/{name}/entry": (_speaker(message), name),
        f"event/{name}": (name, "observers"),
    }
    return known.get(topic, ("scheduler", name))


def _speaker(message: Mapping[str, Any]) -> str:
    for key in ("replica", "origin"):
        if key in message and message.get("type") != "operate":
            return str(message[key])
    request = message.get("request")
    request_id = request.get("id") if isinstance(request, dict) else message.get("id")
    return str(request_id).partition("/")[0] if request_id else "an origin"


def essentials(message: Mapping[str, Any]) -> str:
    """What matters in a message beside its type: the request, then its other fields, briefly."""
    request = message.get("request")
    inner = request if isinstance(request, dict) else {}
    parts = []
    request_id = message.get("id") or inner.get("id")
    if request_id:
        parts.append(short_id(str(request_id)))
    parts += [f"{key}={inner[key]}" for key in _REQUEST_PARTS if key in inner]
    for key, value in message.items():
        if key not in _HIDDEN:
            parts.append(f"{key}={_brief(value)}")
    return " ".join(parts)


def short_id(request_id: str) -> str:
    """`player/12` for `player/1764000000000/12`: the life in between is the same for all."""
    parts = request_id.split("/")
    return f"{parts[0]}/{parts[-1]}" if len(parts) == 3 else request_id  # noqa: PLR2004 - its form


def story_line(at: str, topic: str, message: Mapping[str, Any]) -> str:
    """Time, sender, receiver, type and essentials."""
    sender, receiver = who(topic, message)
    said = str(message.get("type", "?"))
    line = f"{at}  {sender:>10} → {receiver:<10} {said:<15} {essentials(message)}"
    return clean(line)


def event_line(at: str, envelope: Mapping[str, Any]) -> str:
    """The same for what a process reports to observers."""
    event = envelope.get("event")
    inner: Mapping[str, Any] = event if isinstance(event, dict) else {}
    source, said = str(envelope.get("source", "?")), str(inner.get("type", "?"))
    return clean(f"{at}  {source:>10} · {'':<10} {said:<15} {essentials(inner)}")


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return f"[{len(value)}]" if len(str(value)) > _MOST_CHARS // 2 else str(value)
    if isinstance(value, dict):
        inner = " ".join(f"{key}={_brief(item)}" for key, item in value.items())
        value = "{" + inner + "}"
    text = str(value)
    return text if len(text) <= _MOST_CHARS else text[:_MOST_CHARS] + "…"
