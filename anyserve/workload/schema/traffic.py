"""The `traffic` section: phases of time, and streams of requests through them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from anyserve.workload.schema.arrivals import Burst, Sessions, Trace
from anyserve.workload.schema.types import (
    Attributes,
    CapabilityName,
    Duration,
    Id,
    PositiveDuration,
    Section,
)

MAX_TOKENS: Final = 10_000_000
TokenCount = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Rate = Annotated[float, Field(ge=0, le=1_000_000)]


class Bounds(Section):
    """Smallest and largest, both possible."""

    min: TokenCount
    """The fewest tokens."""
    max: TokenCount
    """The most tokens."""


class UniformLength(Section):
    """Every length from min to max is equally likely."""

    uniform: Bounds
    """The range."""


class LognormalShape(Section):
    """Half of the lengths are below the median; sigma is the spread of their logarithm."""

    median: float = Field(gt=0, le=MAX_TOKENS)
    """Half are shorter."""
    sigma: float = Field(ge=0, le=5)
    """Spread of the logarithm: 0.5 is moderate, 1.5 has a long tail."""
    min: TokenCount = 1
    """Shorter draws count as this."""
    max: TokenCount
    """Longer draws count as this."""


class LognormalLength(Section):
    """Many short, few long: the shape of real prompts and answers."""

    lognormal: LognormalShape
    """The shape."""


def _length_kind(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return "fixed length"
    for name, model in (("uniform", UniformLength), ("lognormal", LognormalLength)):
        if isinstance(value, model) or (isinstance(value, dict) and name in value):
            return f"{name} length"
    return None


Length = Annotated[
    Annotated[TokenCount, Tag("fixed length")]
    | Annotated[UniformLength, Tag("uniform length")]
    | Annotated[LognormalLength, Tag("lognormal length")],
    Discriminator(
        _length_kind,
        custom_error_type="length_kind",
        custom_error_message="not a length in tokens",
    ),
]
"""Tokens: a number, `uniform` or `lognormal`."""


class Prefix(Section):
    """Requests share the beginning of their prompts, as system prompts and sessions do."""

    tokens: TokenCount
    """Length of the shared beginning; a shorter prompt is all prefix."""
    groups: int = Field(default=1, ge=1, le=1_000_000)
    """How many different beginnings; each request takes one at random."""


class Sampling(Section):
    """How tokens are chosen; names and meanings are vLLM's."""

    temperature: float = Field(default=0.0, ge=0, le=2)
    """0 takes the likeliest token, so that runs can be compared."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling."""
    top_k: int = Field(default=0, ge=0)
    """Only the k likeliest tokens; 0 for all."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Least probability relative to the likeliest token."""
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1)
    """Seed of the sampler, equal for every request of the stream."""
    ignore_eos: bool = True
    """Generate exactly output_tokens tokens; false lets the model stop earlier."""
    stop: list[str] = Field(default_factory=list, max_length=16)
    """Texts that end the answer."""
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    """As in vLLM."""
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    """As in vLLM."""
    repetition_penalty: float = Field(default=1.0, gt=0, le=10)
    """As in vLLM."""


class Stream(Section):
    """Requests of one kind: at a rate whatever becomes of them (open loop), from users who wait for
    their answers (closed loop), or as a trace says."""

    capability: CapabilityName
    """What they ask for."""
    rate: Rate | None = None
    """Requests (or sessions) per second, unless a phase says otherwise."""
    arrivals: Literal["constant", "poisson", "gamma", "bursty"] = "constant"
    """Evenly spaced, or at random with that mean rate: poisson, gamma (see cv), bursty (see
    burst)."""
    cv: float = Field(default=1.0, gt=0, le=20)
    """Of gamma arrivals: standard deviation of the gaps over their mean; 1 is Poisson, more is
    burstier."""
    burst: Burst | None = None
    """Of bursty arrivals: how long they come and how long they do not."""
    concurrency: int | None = Field(default=None, ge=1, le=1_000_000)
    """Closed loop instead of a rate: so many users, each of whom sends a request, waits for its
    end, thinks, and sends the next one."""
    think: Duration = 0
    """Of closed-loop users: from the end of an answer to the next request."""
    requests: int | None = Field(default=None, ge=1, le=10_000_000)
    """Of closed-loop users: the most requests of all together; the traffic's end stops them too."""
    trace: Trace | None = None
    """A trace instead of a rate and lengths."""
    sessions: Sessions | None = None
    """Conversations of several turns instead of single requests."""
    prompt_tokens: Length | None = None
    """Length of the prompts, exact; in a session, of what each turn adds. Needed, except for a
    trace and for handlers."""
    output_tokens: Length | None = None
    """Tokens asked for. Needed to generate; an embedding has none."""
    payload: Any = None
    """For handlers: what they get, the same for every request."""
    attributes: Attributes = Field(default_factory=dict)
    """Attributes a replica must offer."""
    entry: Id = Field(default="scheduler", examples=["scheduler", "any", "s1"])
    """Where requests enter: the scheduler, one replica (or any of a group), or any replica."""
    priority: int = Field(default=0, ge=-1000, le=1000)
    """Lower goes first."""
    deadline: PositiveDuration | None = None
    """After this a request is worthless and expires."""
    prefix: Prefix | None = None
    """Shared beginnings of the prompts."""
    sampling: Sampling = Sampling()
    """How tokens are chosen."""


class Phase(Section):
    """A stretch of time, and how busy it is."""

    name: Id
    """Its name in reports."""
    duration: PositiveDuration
    """How long it lasts."""
    scale: float = Field(default=1.0, ge=0, le=1000)
    """Multiplies the rate of every stream that `rates` does not name."""
    rates: dict[Id, Rate] = Field(default_factory=dict)
    """Requests per second of single streams in this phase."""


class Traffic(Section):
    """What is asked of the cluster, and when."""

    phases: list[Phase] = Field(min_length=1)
    """One after the other."""
    streams: dict[Id, Stream] = Field(min_length=1)
    """All streams, by name; each runs through every phase."""
