"""Counts for Prometheus. Labels hold route templates, never an id."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """One registry per application, so that two of them in one process do not meet."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "recs_http_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "recs_http_request_seconds",
            "Time to answer, without the network.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._in_progress = Gauge("recs_http_requests_in_progress", "Requests under way.", registry=self._registry)
        self._cache = Counter(
            "recs_recommendation_cache", "Recommendations by cache result.", ("result",), registry=self._registry
        )
        self._degraded = Counter(
            "recs_degraded_answers", "Answers that had to do without a store.", ("store",), registry=self._registry
        )

    def began(self) -> None:
        self._in_progress.inc()

    def ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request; `route` is a template."""
        method = method if method in _METHODS else "other"
        self._in_progress.dec()
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def recommended(self, *, hit: bool) -> None:
        self._cache.labels("hit" if hit else "miss").inc()

    def degraded(self, stores: list[str]) -> None:
        for store in stores:
            self._degraded.labels(store).inc()

    def text(self) -> bytes:
        """Return all of it in Prometheus's text format."""
        return generate_latest(self._registry)
