"""What a surface counts about itself, for Prometheus. Each application has a registry of its own.

Labels are route templates, never paths, so that clients cannot grow the number of series. This
module must not know the gateway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["CONTENT_TYPE", "Observation"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WS"})
_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class _Snapshot(Collector):
    """Gauges that were read a moment ago."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        for name, value in sorted(self._values.items()):
            yield GaugeMetricFamily(name, name.removeprefix("harmonia_").replace("_", " "), value)


class Observation:
    """Requests by route and status, their durations, and the streams that are open."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "harmonia_http_requests",
            "Requests answered, by route and status",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "harmonia_http_request_seconds",
            "Time from a request's start to the end of its answer, by route",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._streams = Gauge(
            "harmonia_streams_open",
            "Event streams that are open in this replica",
            ("surface",),
            registry=self._registry,
        )

    def note_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(known, route).observe(seconds)

    @contextmanager
    def open_stream(self, surface: str) -> Iterator[None]:
        """Count a stream for as long as the context lasts."""
        gauge = self._streams.labels(surface)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def render(self, gauges: Mapping[str, float]) -> bytes:
        """Everything counted here and the given gauges, in Prometheus' text format."""
        snapshot = CollectorRegistry()
        snapshot.register(_Snapshot(gauges))
        return generate_latest(snapshot) + generate_latest(self._registry)
