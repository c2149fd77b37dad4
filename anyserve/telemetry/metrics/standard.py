"""Names that others' dashboards and autoscalers know: vLLM's, and OpenTelemetry's for GenAI.

Only where they mean the same. vLLM's `engine` is the replica here and `model_name` the capability:
what a client of AnyServe names as the model. `engine="scheduler"` are requests that no replica has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric

from anyserve.telemetry.metrics.fold import ClusterMetrics
from anyserve.telemetry.metrics.native import counter, gauge, histogram

_ENGINE = ("model_name", "engine")
SCHEDULER = "scheduler"


def standard_families(metrics: ClusterMetrics) -> Iterator[Metric]:
    """Every family under a name of vLLM or OpenTelemetry."""
    yield from _loads(metrics)
    yield from _counters(metrics)
    for each in (
        metrics.vllm_ttft, metrics.vllm_itl, metrics.vllm_tpot, metrics.vllm_e2e,
        metrics.vllm_queue, metrics.vllm_prefill, metrics.vllm_decode, metrics.gen_ai_request,
        metrics.gen_ai_ttft, metrics.gen_ai_tpot,
    ):  # fmt: skip
        yield histogram(each)


def _loads(metrics: ClusterMetrics) -> Iterator[Metric]:
    loads = [
        ((",".join(sorted(one.offers)), name), one.load)
        for name, one in sorted(metrics.state.replicas.items())
        if one.load is not None
    ]
    queues: Counter[str] = Counter()
    for name, count in metrics.state.queues.items():
        queues[metrics.label(name)] += count
    yield gauge(
        "vllm:num_requests_running", "Number of requests in execution.",
        _ENGINE, ((labels, load.running) for labels, load in loads),
    )  # fmt: skip
    yield gauge(
        "vllm:num_requests_waiting", "Number of requests waiting to be processed.", _ENGINE,
        [
            *((labels, load.waiting) for labels, load in loads),
            *(((name, SCHEDULER), count) for name, count in sorted(queues.items())),
        ],
    )  # fmt: skip
    yield gauge(
        "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent.", _ENGINE,
        ((labels, load.kv_usage) for labels, load in loads),
    )  # fmt: skip


def _counters(metrics: ClusterMetrics) -> Iterator[Metric]:
    for name, text, counts in (
        ("prompt_tokens", "Prompt tokens processed.", metrics.read_tokens),
        ("generation_tokens", "Generation tokens processed.", metrics.served_tokens),
        ("prefix_cache_queries", "Prefix cache queries, in tokens.", metrics.prefix_queries),
        ("prefix_cache_hits", "Prefix cache hits, in tokens.", metrics.prefix_hits),
    ):
        yield counter(f"vllm:{name}", text, _ENGINE, sorted(counts.items()))
    yield counter(
        "vllm:request_success", "Finished requests, by reason.", (*_ENGINE, "finished_reason"),
        sorted(metrics.finished.items()),
    )  # fmt: skip
    rejections: Counter[tuple[str, ...]] = Counter()
    for (asked, outcome, code), count in metrics.outcomes.items():
        if outcome == "rejected" and code == "queue_full":
            rejections[asked, code] += count
    yield counter(
        "vllm:admission_rejections", "Requests rejected by a queue limit.",
        ("model_name", "reason"), sorted(rejections.items()),
    )  # fmt: skip
