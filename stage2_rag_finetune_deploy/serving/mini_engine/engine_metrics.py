"""What /metrics shows of the mini engine, under vLLM's names, so that one dashboard reads both."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stage2_rag_finetune_deploy.serving.mini_engine.scheduler import Counters, Scheduler

LABELS = ("model_name", "engine")
SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96)


class EngineMetrics:
    """Figures of one engine; several engines may share a registry.

    Args:
        model: label `model_name`.
        others: the metrics of an engine whose registry is shared; None is a new registry.
    """

    def __init__(self, model: str, others: "EngineMetrics | None" = None) -> None:
        self.registry = others.registry if others else CollectorRegistry()
        self._families = others._families if others else families(self.registry)
        self._by_name = {name: each.labels(model, "0") for name, each in self._families.items() if name != "success"}
        self._model, self._seen = model, Counters()
        self.refused = self._by_name["refused"]

    def token(self, now: float, arrived: float, last: float | None) -> None:
        """A token came: the first of its request, or one after the last."""
        self._by_name["generated"].inc()
        if last is None:
            self._by_name["first"].observe(now - arrived)
        else:
            self._by_name["between"].observe(now - last)

    def ended(self, reason: str, seconds: float | None = None, prompt_tokens: int = 0) -> None:
        """A request ended."""
        self._families["success"].labels(self._model, "0", reason).inc()
        self._by_name["prompt"].inc(prompt_tokens)
        if seconds is not None:
            self._by_name["whole"].observe(seconds)

    def state(self, scheduler: Scheduler) -> None:
        """How it stands after a step."""
        figures, now, before = self._by_name, scheduler.counters, self._seen
        figures["running"].set(len(scheduler.running))
        figures["waiting"].set(len(scheduler.waiting))
        figures["usage"].set(1 - scheduler.blocks.num_free / scheduler.blocks.num_blocks)
        figures["queries"].inc(now.prefix_queries - before.prefix_queries)
        figures["hits"].inc(now.prefix_hits - before.prefix_hits)
        figures["preemptions"].inc(now.preemptions - before.preemptions)
        self._seen = Counters(**vars(now))


def families(registry: CollectorRegistry) -> dict:
    """The metrics by our short names."""

    def make(kind: type, name: str, text: str, labels: tuple[str, ...] = LABELS, **more: object):  # noqa: ANN202
        return kind(f"vllm:{name}", text, labels, registry=registry, **more)

    return {
        "running": make(Gauge, "num_requests_running", "requests in the batch"),
        "waiting": make(Gauge, "num_requests_waiting", "requests that wait"),
        "usage": make(Gauge, "kv_cache_usage_perc", "share of the blocks in use; 1 is all"),
        "queries": make(Counter, "prefix_cache_queries", "prompt tokens looked up in the prefix cache"),
        "hits": make(Counter, "prefix_cache_hits", "prompt tokens found there"),
        "preemptions": make(Counter, "num_preemptions", "requests that gave their blocks back to be computed again"),
        "prompt": make(Counter, "prompt_tokens", "tokens of answered prompts"),
        "generated": make(Counter, "generation_tokens", "tokens of answers"),
        "refused": make(Counter, "admission_rejections", "requests over the limit"),
        "success": make(Counter, "request_success", "requests that ended", (*LABELS, "finished_reason")),
        "first": make(Histogram, "time_to_first_token_seconds", "from arrival", buckets=SECONDS),
        "between": make(Histogram, "inter_token_latency_seconds", "between two tokens of a request", buckets=SECONDS),
        "whole": make(Histogram, "e2e_request_latency_seconds", "of a whole request", buckets=SECONDS),
    }
