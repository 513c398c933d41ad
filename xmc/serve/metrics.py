"""What a server counts of itself, for Prometheus; of several processes, one sum."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

__all__ = ["CONTENT_TYPE", "SHARED", "ServerMetrics", "forget_process"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of the folder through which several processes share their counts; set before this module is imported."""
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ServerMetrics:
    """The counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("xmc_requests", "Requests by route and status.", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "xmc_request_seconds",
            "Seconds from a request to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_sizes = Histogram("xmc_batch_queries", "Queries in a batch.", buckets=SIZES, registry=registry)
        self.batch_seconds = Histogram(
            "xmc_batch_seconds", "Seconds that a batch took.", buckets=SECONDS, registry=registry
        )
        self.waiting = Gauge(
            "xmc_open_requests", "Requests without an answer yet.", registry=registry, multiprocess_mode="livesum"
        )
        self.labels = Gauge("xmc_labels", "Labels.", registry=registry, multiprocess_mode="max")
        self.version = Gauge("xmc_labels_version", "Version of the labels.", registry=registry, multiprocess_mode="max")
        self.takeovers = Counter(
            "xmc_takeovers", "Replaced run directories by what became of them.", ["outcome"], registry=registry
        )

    def batch(self, queries: int, seconds: float) -> None:
        """Count a batch."""
        self.batch_sizes.observe(queries)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format, of all processes where there are several."""
        if SHARED not in os.environ:
            return generate_latest(self._registry)
        collected = CollectorRegistry()
        MultiProcessCollector(collected)  # type: ignore[no-untyped-call]
        return generate_latest(collected)


def forget_process(pid: int) -> None:
    """What an ended process showed as its state is no longer summed; what it counted stays."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]
