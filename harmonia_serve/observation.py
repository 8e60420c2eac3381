"""What a surface counts about itself, for Prometheus. Each application has a registry of its own.

Labels are route templates, never paths, so that clients cannot grow the number of series. This
module must not know the gateway.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from harmonia_actors.core.event_batches import made_once
from harmonia_actors.core.requests import AnyEvent
from harmonia_actors.core.summary import SUMMARY_TYPE

__all__ = ["CONTENT_TYPE", "Observation", "StreamNotes"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WS"})
_AT_MS: Final = b'"timestamp_ms":'
_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class _Snapshot(Collector):
    """Gauges that were read a moment ago."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        for name, value in sorted(self._values.items()):
            yield GaugeMetricFamily(name, name.removeprefix("harmonia_").replace("_", " "), value)


@dataclass(slots=True)
class _Tally:
    """What one kind of stream has delivered. Plain numbers: each send adds to them."""

    events: int = 0
    #: How many ages fell into which bucket, the last one of no bound; and all ages together.
    buckets: list[int] = field(default_factory=lambda: [0] * (len(_SECONDS) + 1))
    seconds: float = 0.0

    def add_age(self, seconds: float, count: int = 1) -> None:
        """So many events of this age."""
        self.buckets[bisect.bisect_left(_SECONDS, seconds)] += count
        self.seconds += seconds * count


class _Deliveries(Collector):
    """The tallies of all kinds, as Prometheus reads them."""

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}

    def of(self, surface: str) -> _Tally:
        """The tally of one kind of stream."""
        return self._tallies.setdefault(surface, _Tally())

    def collect(self) -> Iterator[Metric]:
        """One counter and one histogram, by kind."""
        delivered = CounterMetricFamily(
            "harmonia_events_delivered",
            "Events sent to subscribers, each as often as it was sent",
            labels=("surface",),
        )
        seconds = HistogramMetricFamily(
            "harmonia_event_delivery_seconds",
            "Age of an event when it has been sent, if it happened while the stream was open",
            labels=("surface",),
        )
        bounds = [*map(floatToGoString, _SECONDS), "+Inf"]
        for surface, tally in sorted(self._tallies.items()):
            delivered.add_metric((surface,), tally.events)
            reached = list(zip(bounds, accumulate(tally.buckets), strict=True))
            seconds.add_metric((surface,), reached, tally.seconds)
        yield delivered
        yield seconds


class StreamNotes:
    """What one stream tells of itself."""

    __slots__ = ("_dropped", "_opened_ms", "_surface", "_tally")

    def __init__(self, surface: str, tally: _Tally, dropped: Counter) -> None:
        self._surface = surface
        self._tally = tally
        self._dropped = dropped
        self._opened_ms = time.time_ns() // 1_000_000

    def note_delivered(self, events: Sequence[AnyEvent]) -> None:
        """Count events that have been sent, and how old those are that happened meanwhile."""
        self._tally.events += len(events)
        now_ms = time.time_ns() / 1e6
        for at_ms, count in reversed(made_once(events, "times", _times)):
            if at_ms < self._opened_ms:
                # History, like all before it.
                return
            self._tally.add_age(max(0.0, now_ms - at_ms) / 1000, count)

    def note_dropped(self, reason: str) -> None:
        """Count that the stream was ended although there may be more to come."""
        self._dropped.labels(self._surface, reason).inc()


def _times(events: Sequence[AnyEvent]) -> Sequence[tuple[int, int]]:
    """The times of events in their order, each with how many in a row have it."""
    told = (_at_ms(event) for event in events if event.type != SUMMARY_TYPE)
    return [(at_ms, len(list(same))) for at_ms, same in groupby(told) if at_ms is not None]


def _at_ms(event: AnyEvent) -> int | None:
    """The time of an event, without a parse of all of it; a mark has none."""
    start = event.body.find(_AT_MS, 0, event.data_at) + len(_AT_MS)
    if start < len(_AT_MS):
        return None
    return int(event.body[start : event.body.index(b",", start)])


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
        self._deliveries = _Deliveries()
        self._registry.register(self._deliveries)
        self._dropped = Counter(
            "harmonia_streams_dropped",
            "Streams that were ended by the service before their last event, by reason",
            ("surface", "reason"),
            registry=self._registry,
        )

    def note_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(known, route).observe(seconds)

    @contextmanager
    def open_stream(self, surface: str) -> Iterator[StreamNotes]:
        """Count a stream for as long as the context lasts."""
        gauge = self._streams.labels(surface)
        gauge.inc()
        try:
            yield StreamNotes(surface, self._deliveries.of(surface), self._dropped)
        finally:
            gauge.dec()

    def render(self, gauges: Mapping[str, float]) -> bytes:
        """Everything counted here and the given gauges, in Prometheus' text format."""
        snapshot = CollectorRegistry()
        snapshot.register(_Snapshot(gauges))
        return generate_latest(snapshot) + generate_latest(self._registry)
