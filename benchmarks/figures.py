"""The arithmetic of results: medians and spread, percentiles, growth, granularity, knees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Spread", "growth_exponent", "knee", "metg", "percentile", "spread_of"]


@dataclass(frozen=True)
class Spread:
    """The middle of some samples, and between which values the middle half of them lies."""

    median: float
    low: float
    high: float
    samples: int


def percentile(values: Sequence[float], percent: float) -> float:
    """By linear interpolation between the two nearest. Raises ValueError without any values."""
    if not values:
        raise ValueError("there is no percentile of nothing")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def spread_of(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    low, median, high = (percentile(values, percent) for percent in (25, 50, 75))
    return Spread(median, low, high, len(values))


def growth_exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """The b of y = a x^b that fits best: 1 is proportional. None for fewer than two sizes."""
    logs = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    mean_x = sum(x for x, _ in logs) / len(logs) if logs else 0.0
    mean_y = sum(y for _, y in logs) / len(logs) if logs else 0.0
    square = sum((x - mean_x) ** 2 for x, _ in logs)
    if not square:
        return None
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / square


def metg(points: Sequence[tuple[float, float]], share: float = 0.5) -> float | None:
    """Smallest granularity at which the efficiency is still `share`, of (granularity, efficiency).

    Granularity is wall time times cores by tasks. Between two points it is interpolated by the
    logarithm of the granularity. None: no point is that efficient.
    """
    ordered = sorted(points)
    for (small, less), (large, more) in reversed(list(pairwise(ordered))):
        if more >= share > less:
            part = (share - less) / (more - less)
            return math.exp(math.log(small) + part * (math.log(large) - math.log(small)))
    good = [granularity for granularity, efficiency in ordered if efficiency >= share]
    return min(good, default=None)


def knee(steps: Sequence[tuple[float, bool]]) -> float | None:
    """The highest rate up to which all were kept up with. None: not even the first was."""
    found = None
    for rate, kept_up in sorted(steps):
        if not kept_up:
            break
        found = rate
    return found
