"""The arithmetic of the benchmarks' results."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import growth_exponent, knee, metg, percentile, spread_of

NUMBERS = st.floats(-1e9, 1e9)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([7.0], 99, 7.0), ([4.0, 1.0, 3.0, 2.0], 50, 2.5), ([0.0, 10.0], 90, 9.0)],
)
def test_a_percentile_lies_between_its_neighbours(
    values: list[float], percent: float, expected: float
) -> None:
    assert percentile(values, percent) == pytest.approx(expected)


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


@given(st.lists(NUMBERS, min_size=1, max_size=30))
def test_a_spread_is_in_order_and_within_the_samples(values: list[float]) -> None:
    spread = spread_of(values)
    slack = 1e-6 * (1 + max(map(abs, values)))
    assert min(values) - slack <= spread.low <= spread.median + slack
    assert spread.median - slack <= spread.high <= max(values) + slack
    assert spread.samples == len(values)


@given(st.floats(0.2, 3), st.floats(1e-6, 1e3))
def test_the_exponent_of_a_power_is_found(exponent: float, factor: float) -> None:
    points = [(size, factor * size**exponent) for size in (100.0, 1_000.0, 5_000.0, 10_000.0)]
    assert growth_exponent(points) == pytest.approx(exponent, rel=1e-6)


def test_one_size_has_no_exponent() -> None:
    assert growth_exponent([]) is None
    assert growth_exponent([(100, 1.0), (100, 2.0)]) is None


def test_the_granularity_is_interpolated_where_the_efficiency_crosses_half() -> None:
    points = [(100.0, 0.1), (1_000.0, 0.3), (10_000.0, 0.7), (100_000.0, 0.9)]
    assert metg(points) == pytest.approx(math.sqrt(1_000 * 10_000))


def test_the_granularity_of_one_that_is_always_efficient_is_the_smallest_tried() -> None:
    assert metg([(300.0, 0.6), (900.0, 0.8)]) == 300


def test_one_that_is_never_efficient_has_no_granularity() -> None:
    assert metg([(300.0, 0.1), (900.0, 0.4)]) is None


def test_the_knee_is_before_the_first_rate_that_was_too_high() -> None:
    assert knee([(100, True), (25, True), (200, False), (400, True)]) == 100
    assert knee([(5, False), (25, True)]) is None
    assert knee([]) is None
