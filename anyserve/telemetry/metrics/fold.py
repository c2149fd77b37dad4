"""Events in, counters and histograms out: what `/metrics` shows of a whole cluster.

Stands on the reducer and adds what only Prometheus wants: cumulative histograms. Bounded: labels
come from the cluster's own registrations, and names that clients invent share one label value
beyond a limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from anyserve.core.events import (
    AttemptEnded,
    AttemptHandedBack,
    AttemptStarted,
    BusTrouble,
    Envelope,
    ReplicaChanged,
    RequestRouted,
    WorkerChanged,
)
from anyserve.core.messages import Registration, SchedulerState
from anyserve.telemetry.metrics.histograms import (
    GEN_AI_REQUEST_S,
    GEN_AI_TOKEN_S,
    GEN_AI_TTFT_S,
    HOPS,
    LATENCY_S,
    TOKEN_S,
    VLLM_REQUEST_S,
    VLLM_TOKEN_S,
    VLLM_TTFT_S,
    Histograms,
)
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.reducer_state import OTHER_CAPABILITIES, Memory, RequestState
from anyserve.telemetry.replica_names import ReplicaNames

MEMORY: Final = Memory(
    events_per_request=0, recent=256, unoffered=4096, ledger=0, notices=0, faults=0, samples=0
)
"""No more of the past than the matching of late events needs: about 1 kB a request in flight."""
CLIENT_NAMES: Final = 64
"""So many capability names that nobody offers get a label of their own."""
PROVIDER: Final = "anyserve"
_GEN_AI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model",
           "gen_ai_response_model")  # fmt: skip
_ENGINE = ("model_name", "engine")


class ClusterMetrics:
    """Folds envelopes; `anyserve.telemetry.metrics.exposition.render` writes them out.

    `state` is the reducer underneath: gauges are read from it when somebody asks.
    """

    def __init__(self) -> None:
        self.state = Reducer(MEMORY, on_settled=self._settled)
        self.outcomes: Counter[tuple[str, str, str]] = Counter()
        """By (capability asked, outcome, code)."""
        self.prompt_tokens: Counter[str] = Counter()
        self.output_tokens: Counter[str] = Counter()
        self.finished: Counter[tuple[str, str, str]] = Counter()
        """By (capability, replica, finish reason as vLLM names it)."""
        self.prefix_queries: Counter[tuple[str, str]] = Counter()
        self.prefix_hits: Counter[tuple[str, str]] = Counter()
        self.bus_troubles: Counter[str] = Counter()
        self.worker_exits: Counter[str] = Counter()
        self.served_tokens: Counter[tuple[str, str]] = Counter()
        self.read_tokens: Counter[tuple[str, str]] = Counter()
        self._make_histograms()
        self._names = ReplicaNames()
        self._before = 0
        self._heard: set[tuple[str, int]] = set()
        self._offered: set[str] = set()
        self._invented: set[str] = set()
        self._handlers: dict[type, Callable[[Envelope, Any], None]] = {
            RequestRouted: self._routed,
            AttemptStarted: self._started,
            AttemptHandedBack: self._handed_back,
            AttemptEnded: self._ended,
            BusTrouble: self._bus_trouble,
            WorkerChanged: self._worker_changed,
        }

    def _make_histograms(self) -> None:
        by_capability = ("capability",)
        self.ttft = Histograms(
            "anyserve_time_to_first_token_seconds",
            "From when a request was meant to be sent to its first token, if completed.",
            by_capability, LATENCY_S,
        )  # fmt: skip
        self.tpot = Histograms(
            "anyserve_time_per_output_token_seconds",
            "(last - first token) / (tokens - 1) of each completed request.",
            by_capability, TOKEN_S,
        )  # fmt: skip
        self.itl = Histograms(
            "anyserve_inter_token_latency_seconds",
            "Gaps between deliveries of tokens to the client, of completed requests.",
            by_capability, TOKEN_S,
        )  # fmt: skip
        self.e2e = Histograms(
            "anyserve_request_duration_seconds",
            "From when a request was meant to be sent to its outcome.",
            ("capability", "outcome"), LATENCY_S,
        )  # fmt: skip
        self.queue = Histograms(
            "anyserve_queue_time_seconds",
            "Time in one queue until the request left it: at the scheduler, or at a replica.",
            ("capability", "place"), LATENCY_S,
        )  # fmt: skip
        self.hops = Histograms(
            "anyserve_request_hops",
            "1 + delegations of each request that was assigned to a replica.",
            by_capability, HOPS,
        )  # fmt: skip
        self._make_standard_histograms()

    def _make_standard_histograms(self) -> None:
        def vllm(name: str, text: str, bounds: tuple[float, ...]) -> Histograms:
            return Histograms(f"vllm:{name}_seconds", text, _ENGINE, bounds)

        self.vllm_ttft = vllm("time_to_first_token", "Time to first token.", VLLM_TTFT_S)
        self.vllm_itl = vllm("inter_token_latency", "Inter-token latency.", VLLM_TOKEN_S)
        self.vllm_tpot = vllm(
            "request_time_per_output_token", "Time per output token of a request.", VLLM_TOKEN_S
        )
        self.vllm_e2e = vllm("e2e_request_latency", "End-to-end request latency.", VLLM_REQUEST_S)
        self.vllm_queue = vllm("request_queue_time", "Time waiting in the engine.", VLLM_REQUEST_S)
        self.vllm_prefill = vllm("request_prefill_time", "Time in prefill.", VLLM_REQUEST_S)
        self.vllm_decode = vllm("request_decode_time", "Time in decode.", VLLM_REQUEST_S)
        self.gen_ai_request = Histograms(
            "gen_ai_server_request_duration_seconds",
            "OpenTelemetry gen_ai.server.request.duration.",
            (*_GEN_AI, "error_type"), GEN_AI_REQUEST_S,
        )  # fmt: skip
        self.gen_ai_ttft = Histograms(
            "gen_ai_server_time_to_first_token_seconds",
            "OpenTelemetry gen_ai.server.time_to_first_token, of successful requests.",
            _GEN_AI, GEN_AI_TTFT_S,
        )  # fmt: skip
        self.gen_ai_tpot = Histograms(
            "gen_ai_server_time_per_output_token_seconds",
            "OpenTelemetry gen_ai.server.time_per_output_token, of successful requests.",
            _GEN_AI, GEN_AI_TOKEN_S,
        )  # fmt: skip

    def apply(self, envelope: Envelope) -> None:
        """Fold one envelope in; a repeated one changes nothing."""
        self._names.learn(envelope.source, envelope.event)
        source = (envelope.source, envelope.incarnation)
        if source not in self._heard:
            self._heard.add(source)
            self._before += envelope.seq
        if not self.state.apply(envelope):
            return
        handler = self._handlers.get(type(envelope.event))
        if handler is not None:
            handler(envelope, envelope.event)

    def registered(self, said: Registration) -> None:
        """What a replica has registered, maybe long before we listened."""
        self.state.learn_replica(
            self.state.now_ns,
            ReplicaChanged(
                replica=said.replica,
                state=said.state.value,
                incarnation=said.incarnation,
                offers={offer.capability: offer.limits.max_tokens for offer in said.offers},
                concurrency=said.concurrency,
                engine=said.engine,
            ),
        )

    def scheduled(self, said: SchedulerState) -> None:
        """Which life of the scheduler it is."""
        self.state.epoch = max(said.epoch, self.state.epoch or 0)
        self._offered.update(said.capabilities)

    @property
    def missing(self) -> int:
        """Events that never came, since each source was first heard; it may have said more before
        that, which nobody here has missed."""
        return max(0, self.state.gaps.missing - self._before)

    def label(self, capability: str | None) -> str:
        """The label of a capability: its name, unless clients have invented too many."""
        name = capability or "?"
        if name in self._offered or name in self._invented or name == OTHER_CAPABILITIES:
            return name
        if any(name in replica.offers for replica in self.state.replicas.values()):
            self._offered.add(name)
            return name
        if len(self._invented) >= CLIENT_NAMES:
            return OTHER_CAPABILITIES
        self._invented.add(name)
        return name

    # --- single waits and attempts -------------------------------------------------------------

    def _routed(self, envelope: Envelope, event: RequestRouted) -> None:
        labels = (self.label(event.capability), "scheduler")
        self.queue.observe_ns(labels, envelope.t - event.received_ns)

    def _started(self, envelope: Envelope, event: AttemptStarted) -> None:
        labels = (self.label(event.capability), "replica")
        self.queue.observe_ns(labels, envelope.t - event.received_ns)

    def _handed_back(self, envelope: Envelope, event: AttemptHandedBack) -> None:
        request = self.state.find(event.id)
        capability = None if request is None else request.capability or request.asked
        labels = (self.label(capability), "replica")
        self.queue.observe_ns(labels, envelope.t - event.received_ns)

    def _ended(self, envelope: Envelope, event: AttemptEnded) -> None:
        request = self.state.find(event.id)
        replica = self._names.of(envelope.source)
        capability = None if request is None else request.capability or request.asked
        labels = (self.label(capability), replica)
        self.served_tokens[labels] += event.n_tokens
        if request is not None and request.prompt_tokens is not None:
            self.read_tokens[labels] += request.prompt_tokens
            if event.cached_tokens is not None:
                self.prefix_queries[labels] += request.prompt_tokens
                self.prefix_hits[labels] += event.cached_tokens
        if event.status == "completed":
            self.vllm_queue.observe_ns(labels, event.times.engine_wait_ns)
            self.vllm_prefill.observe_ns(labels, event.times.prefill_ns)
            self.vllm_decode.observe_ns(labels, event.times.decode_ns)

    def _bus_trouble(self, _envelope: Envelope, event: BusTrouble) -> None:
        self.bus_troubles[event.kind] += event.count

    def _worker_changed(self, _envelope: Envelope, event: WorkerChanged) -> None:
        if event.state in {"exited", "hung", "killed"}:
            self.worker_exits[event.replica] += 1

    # --- whole requests ------------------------------------------------------------------------

    def _settled(self, request: RequestState) -> None:
        outcome = request.outcome
        assert outcome is not None
        asked = self.label(request.asked)
        self.outcomes[asked, outcome.outcome, outcome.code or ""] += 1
        self.prompt_tokens[asked] += request.prompt_tokens or 0
        self.output_tokens[asked] += outcome.n_tokens
        duration_ns = outcome.end_ns - request.intended_ns
        self.e2e.observe_ns((asked, outcome.outcome), duration_ns)
        if request.attempt:
            self.hops.of(asked).observe(1 + len(request.delegated))
        served = self.label(request.capability or request.asked)
        engine = (served, outcome.served_by or "")
        if outcome.served_by:
            self.finished[(*engine, _finish(request))] += 1
        gen_ai = (_operation(request), PROVIDER, asked, served)
        error = "" if outcome.outcome == "completed" else outcome.code or outcome.outcome
        self.gen_ai_request.observe_ns((*gen_ai, error), duration_ns)
        if outcome.outcome == "completed":
            self.vllm_e2e.observe_ns(engine, duration_ns)
            self._tokens(request, asked, engine, gen_ai)

    def _tokens(
        self,
        request: RequestState,
        asked: str,
        engine: tuple[str, str],
        gen_ai: tuple[str, str, str, str],
    ) -> None:
        outcome = request.outcome
        assert outcome is not None
        self.itl.observe_all_ns((asked,), outcome.itl_ns)
        self.vllm_itl.observe_all_ns(engine, outcome.itl_ns)
        if outcome.first_ns is None:
            return
        ttft_ns = outcome.first_ns - request.intended_ns
        self.ttft.observe_ns((asked,), ttft_ns)
        self.vllm_ttft.observe_ns(engine, ttft_ns)
        self.gen_ai_ttft.observe_ns(gen_ai, ttft_ns)
        if outcome.n_tokens > 1:
            tpot_ns = (outcome.end_ns - outcome.first_ns) / (outcome.n_tokens - 1)
            self.tpot.observe_ns((asked,), tpot_ns)
            self.vllm_tpot.observe_ns(engine, tpot_ns)
            self.gen_ai_tpot.observe_ns(gen_ai, tpot_ns)


def _finish(request: RequestState) -> str:
    """Why it ended, in vLLM's words: stop, length, abort, error."""
    outcome = request.outcome
    assert outcome is not None
    if outcome.outcome == "completed":
        return outcome.finish or "stop"
    return "abort" if outcome.outcome in {"cancelled", "expired"} else "error"


def _operation(request: RequestState) -> str:
    """The operation's name of OpenTelemetry: only an embedding asks for no tokens."""
    return "embeddings" if request.max_tokens == 0 else "text_completion"
