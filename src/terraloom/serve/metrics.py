"""Figures for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """One registry per application, so that two in one process do not mix."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "terraloom_requests", "Answers.", ["what", "method", "status"], registry=registry
        )
        self.seconds = Histogram(
            "terraloom_request_seconds",
            "Time to answer.",
            ["what"],
            buckets=SECONDS,
            registry=registry,
        )
        self.answers = Counter(
            "terraloom_answers",
            "Where images came from: made, shared with another request, kept in memory, or unchanged (304).",
            ["source"],
            registry=registry,
        )
        self.refused = Counter(
            "terraloom_refused", "Refused: busy, late, large.", ["why"], registry=registry
        )
        self.draw_seconds = Histogram(
            "terraloom_draw_seconds",
            "Time to draw a block with its parents.",
            buckets=SECONDS,
            registry=registry,
        )
        self.prefetched = Counter(
            "terraloom_prefetched", "Blocks drawn before anybody asked.", registry=registry
        )
        self.queue = Gauge("terraloom_queue", "Blocks that wait to be drawn.", registry=registry)

    def watch_drawn(self, drawn: Callable[[], int]) -> None:
        """Show how many blocks the network has drawn."""

        class Drawn:
            def collect(self) -> Iterator[Metric]:
                yield CounterMetricFamily(
                    "terraloom_blocks_drawn", "Blocks drawn by the network.", value=drawn()
                )

        self.registry.register(Drawn())

    def text(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self.registry)
