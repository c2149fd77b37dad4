"""The `cluster` section: capabilities, replicas and the rules they follow."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from anyserve.workload.schema.types import (
    CAPABILITY_PATTERN,
    ID_TEMPLATE_PATTERN,
    SECOND,
    Attributes,
    CapabilityName,
    Duration,
    Id,
    PositiveDuration,
    Section,
    Size,
)


class Broker(Section):
    """Where the MQTT broker is. Without a URL one is started for the run."""

    url: str | None = Field(default=None, pattern=r"^mqtts?://", examples=["mqtt://10.0.0.5:1883"])
    """An external broker. No user or password here: they come by environment or file."""


class Scheduler(Section):
    """How requests are routed, ordered and waited for."""

    policy: str = Field(default="least-loaded", examples=["power-of-two", "pkg.mod:MyPolicy"])
    """A shipped routing policy (round-robin, least-loaded, power-of-two, bin-packing,
    prefix-affinity), or your own class as pkg.mod:Class, looked for beside this file too."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the policy, as it defines them."""
    order: Literal["fifo", "deadline"] = "fifo"
    """What waits is served by first offered time, or by earliest deadline. Priority goes first."""
    ageing: PositiveDuration = 30 * SECOND
    """Waiting this long is worth one step of priority, so that nothing waits for ever."""
    wait_for_replica: Duration = 30 * SECOND
    """How long a request waits for a replica that is starting or being restarted."""
    heartbeat: PositiveDuration = SECOND
    """How often a replica reports its load."""
    lost_after: PositiveDuration = 5 * SECOND
    """A replica that was silent this long is lost."""
    ack: PositiveDuration = 2 * SECOND
    """An assignment without an answer is said again after this."""


class Delegation(Section):
    """When a replica may hand a request up the ladder."""

    limit: int = Field(default=1, ge=0, le=1)
    """Delegations per request: 1, or 0 to forbid them."""
    overload: bool = False
    """Whether an entry replica may delegate because its queue is too long (see target_wait)."""


class Budget(Section):
    """How often something may happen to one request."""

    limit: int = Field(ge=0, le=100)
    """The most times; after that the request ends with a typed outcome."""


class Capability(Section):
    """One thing the cluster can compute."""

    upgrade: CapabilityName | None = None
    """The next stronger capability: where a request goes that cannot be served at this one."""
    queue_limit: int = Field(default=1024, ge=0, le=1_000_000)
    """Requests that may wait at the scheduler; more are rejected (queue_full)."""
    target_wait: PositiveDuration | None = None
    """With delegation.overload: a longer predicted wait at the entry replica is overload."""
    reserve: float = Field(default=0.0, ge=0, lt=1)
    """Share of a replica's slots that overload-delegated requests may not take."""
    mid_stream: Literal["fail", "resume"] = "fail"
    """A replica dies after the client has seen tokens: fail the request, or resume it elsewhere."""


class OfferLimits(Section):
    """What a replica takes for a capability."""

    max_tokens: int | None = Field(default=None, ge=1)
    """Prompt plus output tokens; default the engine's max_model_len."""


class Offering(Section):
    """How a replica offers one capability."""

    attributes: Attributes = Field(default_factory=dict)
    """What requests may ask for, such as model: smollm2."""
    limits: OfferLimits = OfferLimits()
    """What it takes."""


class _ListOrMapping:
    """Tells editors that a list of names will do, and that a name may stand without details."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        mapping = handler(core)
        details = mapping.get("additionalProperties") or next(
            iter(mapping["patternProperties"].values())
        )
        values = {"anyOf": [details, {"type": "null"}]}
        name = {"type": "string", "pattern": CAPABILITY_PATTERN}
        return {
            "oneOf": [
                {"type": "array", "items": name, "minItems": 1},
                {"type": "object", "additionalProperties": values, "minProperties": 1},
            ]
        }


def _offers(value: object) -> object:
    """A list of names is short for a mapping of names to {}."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: {} for name in value}
    if isinstance(value, dict):
        return {name: {} if item is None else item for name, item in value.items()}
    return value


class Engine(Section):
    """What the replica's worker runs."""

    kind: Literal["auto", "vllm", "model", "echo", "none"] = "auto"
    """vllm: the real engine (CUDA or CPU build). model: waits as long as a measured step-time model
    says. echo: repeats the prompt. auto: vllm where it is installed, else model. none: an app
    serves everything."""
    model: str | None = Field(default=None, examples=["smollm2-135m", "minilm"], max_length=512)
    """A built-in name, a local folder, or a hub id."""
    task: Literal["generate", "embed"] | None = None
    """Default: what the model is known for, else generate."""
    max_model_len: int | None = Field(default=None, ge=1, le=10_000_000)
    """Context length: prompt plus output tokens."""
    max_num_seqs: int | None = Field(default=None, ge=1, le=4096)
    """Sequences computed at once; default the replica's concurrency."""
    max_num_batched_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    """Tokens computed in one step; default 256 on CPU, vLLM's own on CUDA."""
    kv_cache_gib: float = Field(default=1.0, gt=0, le=1024)
    """Size of the KV cache in GiB, on CPU and of the model engine. On a GPU the cache fills what
    the weights leave of the engine's share."""
    gpus: float = Field(default=0.0, ge=0, le=64)
    """GPUs for this engine alone, or below 1 a share of one GPU's memory. 0: the CPU; with a CUDA
    build of vLLM an even share of what the others leave."""
    threads: int = Field(default=1, ge=1, le=1024)
    """Threads of a CPU engine."""
    dtype: str = "auto"
    """Number format of the weights; auto takes what is fast here."""
    profile: str | None = None
    """Step-time profile of the model engine; default that of the model."""
    step_scale: float = Field(default=1.0, ge=0.001, le=1000)
    """How many times as long as the profile says its steps take: simulated, and as model engine."""
    prefill_scale: float = Field(default=1.0, ge=0.001, le=1000)
    """How many times as long, on top of that, what prompts add to a step takes."""
    step: Duration = 0
    """Pause before each step of the echo engine."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments for the engine, by its own names."""


class App(Section):
    """Your own code, which a replica's worker runs."""

    name: str = Field(max_length=256, examples=["reranker:app"])
    """The anyserve.App, as module:attribute; the module is looked for beside this file too."""
    serves: list[CapabilityName] = Field(default_factory=list)
    """Which of the replica's capabilities it serves; the engine serves the others. Default: all."""


class _NameOrMapping:
    """Tells editors that the name alone will do."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "pattern": r"^[\w.]+:\w+$"}, *_choices(handler(core))]}


def _choices(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return found


def _app(value: object) -> object:
    """A name is short for a mapping with that name."""
    return {"name": value} if isinstance(value, str) else value


class Replica(Section):
    """One replica, or `count` equal ones."""

    capabilities: Annotated[
        dict[CapabilityName, Offering],
        BeforeValidator(_offers),
        Field(min_length=1),
        _ListOrMapping(),
    ]
    """What it registers: a list of names, or names with attributes and limits."""
    engine: Engine = Engine(kind="none")
    """What computes. Needed, unless there is an app."""
    app: Annotated[App | None, BeforeValidator(_app), _NameOrMapping()] = None
    """Handlers of your own, instead of an engine or beside one: module:app."""
    count: int | None = Field(default=None, ge=1, le=100_000)
    """How many such replicas; their ids are made from `id`."""
    id: str | None = Field(default=None, pattern=ID_TEMPLATE_PATTERN, examples=["heavy-{n}"])
    """With count: the pattern of the ids, {n} from 1; default NAME-{n}."""
    concurrency: int | None = Field(default=None, ge=1, le=4096)
    """Requests computed at once; default the engine's max_num_seqs, else 16."""
    prefetch: int = Field(default=0, ge=0, le=4096)
    """Assignments held beyond the slots."""
    entry_queue: int = Field(default=64, ge=0, le=100_000)
    """Requests that entered here and may wait here."""


class Objects(Section):
    """The object plane of each host: large payloads in shared memory."""

    limit: Size = 1 << 30
    """The most bytes of all objects on one host; the oldest make room for new ones."""
    ttl: PositiveDuration = 600 * SECOND
    """How long an object is kept where its maker says nothing."""
    threshold: Size = 256 << 10
    """Larger payloads of handlers travel as references to an object."""


class Cluster(Section):
    """What there is and how it behaves."""

    capabilities: dict[CapabilityName, Capability] = Field(min_length=1)
    """Every capability by name; `upgrade` makes the ladder."""
    replicas: dict[Id, Replica] = Field(min_length=1)
    """Every replica by id; with `count` the name of a group."""
    broker: Broker = Broker()
    """Where the MQTT broker is."""
    scheduler: Scheduler = Scheduler()
    """Routing, order, patience."""
    delegation: Delegation = Delegation()
    """Hand-backs up the ladder."""
    recovery: Budget = Budget(limit=1)
    """Re-assignments because a replica or worker was lost."""
    refuse: Budget = Budget(limit=3)
    """Hand-backs because an assignment rested on stale knowledge."""
    return_: Budget = Field(default=Budget(limit=3), alias="return")
    """Hand-backs because a replica is draining."""
    objects: Objects = Objects()
    """Large payloads."""
    call_depth: int = Field(default=4, ge=0, le=16)
    """How deep calls of handlers may nest; 0 forbids them."""
    request_lifetime: PositiveDuration = 600 * SECOND
    """The longest any request may live."""
