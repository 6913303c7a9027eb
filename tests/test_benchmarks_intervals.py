"""Bootstrap intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.intervals import bootstrap_interval


def test_it_agrees_with_drawing_the_lines_themselves() -> None:
    values = [1.0] * 70 + [0.0] * 30
    generator = np.random.default_rng(11)
    means = [generator.choice(values, len(values)).mean() for _ in range(4000)]
    assert bootstrap_interval(values, seed=0) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.015)


def test_it_is_as_wide_as_the_normal_approximation_says() -> None:
    low, high = bootstrap_interval([True] * 900 + [False] * 100, seed=0)
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(0.9 * 0.1 / 1000), rel=0.05)
    assert low < 0.9 < high


def test_paired_differences_may_have_three_values() -> None:
    low, high = bootstrap_interval([-1] * 10 + [0] * 80 + [1] * 10, seed=0)
    assert low < 0 < high
    assert high == pytest.approx(-low, abs=0.011)


def test_nothing_moves_where_all_lines_are_alike() -> None:
    assert bootstrap_interval([1.0] * 20, seed=0) == (1.0, 1.0)
    assert all(math.isnan(end) for end in bootstrap_interval([], seed=0))


def test_the_same_seed_gives_the_same_interval() -> None:
    values = [True, False, True, True, False]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
