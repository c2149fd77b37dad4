"""What a cluster is made of, as frozen data: what the runtime and the simulator both take.

`workload.compile` makes these from a scenario file; they are JSON on their way to processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from anyserve.core.messages import Offer


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all specifications: immutable, comparable, JSON both ways."""


class LadderSpec(Spec, frozen=True):
    """The acyclic map capability -> the next stronger one."""

    upgrades: Mapping[str, str] = {}


class CapabilitySpec(Spec, frozen=True):
    """One capability of the cluster.

    `queue_limit` binds new submissions at the scheduler. `target_wait_ms` is the predicted wait
    above which an entry replica delegates for overload (where the cluster allows that). `reserve`
    is the share of a replica's slots, 0..1, kept from overload-delegated requests. `mid_stream`
    says what becomes of a request whose replica dies after the client has seen tokens.
    """

    name: str
    queue_limit: int = 1024
    target_wait_ms: float | None = None
    reserve: float = 0.0
    mid_stream: Literal["fail", "resume"] = "fail"


class DelegationSpec(Spec, frozen=True):
    """`limit` delegations per request at most. `overload`: a full entry replica may delegate."""

    limit: int = 1
    overload: bool = False


class SchedulerSpec(Spec, frozen=True):
    """How the scheduler decides and how long it waits.

    `policy`: a shipped name or `pkg.mod:Class`. `order`: `fifo` by first offered time, `deadline`
    by deadline. One step of priority is worth `ageing_ms` of waiting, so nobody waits for ever.
    `lost_after_ms` without a heartbeat a replica is lost; `ack_ms` without an answer an assignment
    is said again.
    """

    policy: str = "least-loaded"
    policy_options: Mapping[str, Any] = {}
    order: Literal["fifo", "deadline"] = "fifo"
    ageing_ms: int = 30_000
    wait_for_replica_ms: int = 30_000
    recovery_limit: int = 1
    refuse_limit: int = 3
    return_limit: int = 3
    heartbeat_ms: int = 1_000
    lost_after_ms: int = 5_000
    ack_ms: int = 2_000
    seed: int = 0


class EngineSpec(Spec, frozen=True):
    """What a replica's worker runs.

    `kind`: vllm, model, echo, none (an app alone), already resolved from `auto`. `task`: generate
    or embed. `step_ms` is for `echo`; `profile` names the step-time model of `model`, and its steps
    take `step_scale` times as long as that says, what prompts add to them `prefill_scale` times as
    long once more. `gpus` is a count or, below 1, a share of one GPU's memory; 0 is the CPU or,
    with a CUDA build, a share of what others leave (`core.placement`). `options` go to the engine
    as they are.
    """

    kind: str = "vllm"
    model: str | None = None
    task: Literal["generate", "embed"] = "generate"
    max_model_len: int | None = None
    max_num_seqs: int = 16
    max_num_batched_tokens: int | None = None
    kv_cache_gib: float = 1.0
    gpus: float = 0.0
    threads: int = 1
    dtype: str = "auto"
    profile: str | None = None
    step_scale: float = 1.0
    prefill_scale: float = 1.0
    step_ms: float = 0.0
    options: Mapping[str, Any] = {}


class AppSpec(Spec, frozen=True):
    """User code that a replica's worker runs: `name` is `module:attribute`, `serves` are the
    offered capabilities that its handlers serve; the engine serves the others."""

    name: str
    serves: tuple[str, ...] = ()


class ObjectsSpec(Spec, frozen=True):
    """The object plane of each host.

    `limit_bytes` bounds all objects on it. `ttl_ms`: how long an object is kept if its maker says
    nothing. Payloads above `threshold_bytes` travel as references by themselves.
    """

    limit_bytes: int = 1 << 30
    ttl_ms: int = 600_000
    threshold_bytes: int = 256 << 10


class ReplicaSpec(Spec, frozen=True):
    """One replica. `concurrency` slots, `prefetch` assignments held beyond them, and
    `entry_queue` requests that entered here may wait."""

    id: str
    offers: tuple[Offer, ...]
    engine: EngineSpec
    concurrency: int = 16
    prefetch: int = 0
    entry_queue: int = 64
    group: str = ""
    app: AppSpec | None = None


class BrokerSpec(Spec, frozen=True):
    """`url` None: an embedded broker is started."""

    url: str | None = None


class ModelRoute(Spec, frozen=True):
    """What a model name of the front door stands for."""

    capability: str
    attributes: Mapping[str, str] = {}


class IngressLimits(Spec, frozen=True):
    """What the front door takes from clients, so that none of them can hurt the others.

    `open_requests` of this ingress may be without an outcome; `unread_frames` of one stream may
    wait for its reader; a client that reads nothing for `stall_ms` is cut off. Headers must be
    there within `header_ms`, the body within `body_ms`, an idle connection lives `idle_ms`.
    """

    body_bytes: int = 4 * 2**20
    header_bytes: int = 32 * 2**10
    connections: int = 2048
    open_requests: int = 4096
    unread_frames: int = 4096
    header_ms: int = 10_000
    body_ms: int = 30_000
    idle_ms: int = 75_000
    stall_ms: int = 30_000


class IngressSpec(Spec, frozen=True):
    """The front doors. A port is None (closed), 0 (a free one) or a number.

    `replica_http_port` and `replica_grpc_port` open the same doors in every replica's process,
    counted up from that number in the order of the replicas. `models` maps model names;
    `generate` and `embed` are the capabilities of requests that name none. API keys are read from
    the environment variable `api_keys_env` or the file `api_keys_file`, one a line; none: open.
    """

    host: str = "127.0.0.1"
    http_port: int | None = 8000
    grpc_port: int | None = None
    replica_http_port: int | None = None
    replica_grpc_port: int | None = None
    models: Mapping[str, ModelRoute] = {}
    generate: str | None = None
    embed: str | None = None
    timeout_ms: int | None = None
    api_keys_env: str | None = None
    api_keys_file: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    drain_ms: int = 20_000
    limits: IngressLimits = IngressLimits()


class ClusterSpec(Spec, frozen=True):
    """The whole cluster. `ingress` None: no front door is opened."""

    name: str
    capabilities: tuple[CapabilitySpec, ...]
    replicas: tuple[ReplicaSpec, ...]
    ladder: LadderSpec = LadderSpec()
    delegation: DelegationSpec = DelegationSpec()
    scheduler: SchedulerSpec = SchedulerSpec()
    broker: BrokerSpec = BrokerSpec()
    objects: ObjectsSpec = ObjectsSpec()
    call_depth: int = 4
    """How deep calls of handlers may nest: 4 means that a client's request may lead to a call of a
    call of a call of a call."""
    request_lifetime_ms: int = 600_000
    ingress: IngressSpec | None = None


KEEPALIVE_S: Final = 5
"""An idle connection to the broker gives a sign of life this often."""
GIVE_UP_NS: Final = KEEPALIVE_S * 1_500_000_000
"""A connection without one is given up after this, by both ends: MQTT's 1.5 times."""


class NetworkSpec(Spec, frozen=True):
    """What the simulator takes for the way between two processes, broker included.

    A message takes `latency_ns` and an exponential draw of mean `jitter_ns`; `drop` and `duplicate`
    are shares, 0..1. Messages from one sender to one receiver keep their order unless `reorder`.
    """

    latency_ns: int = 500_000
    jitter_ns: int = 0
    drop: float = 0.0
    duplicate: float = 0.0
    reorder: bool = False


class SimSpec(Spec, frozen=True):
    """What only a simulation needs to be told; live, these things are as they are.

    `handover_ns`: from a replica to the engine of its worker, which is another process.
    `scheduler_ns`: the scheduler's processor time per message, in which it hears no other one.
    `boot_ns`: from the start of a process until it is connected. `load_ns`: from the start of a
    worker until its engine is ready, where its profile does not say. `cores`: of the one host that
    all engines share; 0: each has enough. `step_jitter`: steps scatter around their formula.
    """

    network: NetworkSpec = NetworkSpec()
    handover_ns: int = 1_000_000
    scheduler_ns: int = 0
    boot_ns: int = 1_000_000_000
    load_ns: int = 0
    cores: int = 0
    step_jitter: bool = False


class Expectation(Spec, frozen=True):
    """One assertion on a run's summary: `metric` is a dotted path in `summary.json`."""

    metric: str
    op: Literal["==", "!=", "<", "<=", ">", ">="]
    value: float | str
    line: int | None = None
    text: str = ""


class FaultSpec(Spec, frozen=True):
    """One planned fault at `at_ns` after the start of traffic; `duration_ns` where it ends."""

    at_ns: int
    action: str
    target: str
    duration_ns: int | None = None
    factor: float | None = None
    options: Mapping[str, Any] = {}
    line: int | None = None
