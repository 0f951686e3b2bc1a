"""What a server counts, for Prometheus: requests, batches, tokens, rows that wait; never a text or a router's name."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "staf_requests", "Requests by endpoint and status.", ["endpoint", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "staf_request_seconds", "Seconds of a request.", ["endpoint"], buckets=SECONDS, registry=self.registry
        )
        self._rows = Histogram("staf_batch_rows", "Rows of a batch.", ["kind"], buckets=ROWS, registry=self.registry)
        self._tokens = Counter("staf_tokens", "Tokens of prompts, and steps of texts.", ["kind"], registry=self.registry)

    def gauge(self, name: str, documentation: str, value: Callable[[], float]) -> None:
        """A number that is read when it is asked for."""
        Gauge(name, documentation, registry=self.registry).set_function(value)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def batch(self, kind: str, rows: int, tokens: int) -> None:
        """A batch was computed (`staf.serve.engine.Observer`)."""
        self._rows.labels(kind).observe(rows)
        self._tokens.labels(kind).inc(tokens)

    def page(self) -> bytes:
        """All numbers in Prometheus's text format."""
        return generate_latest(self.registry)
