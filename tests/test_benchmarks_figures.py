"""What is counted in the lines that a model read."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.figures import LineResult, share_interval


def test_the_interval_of_a_share_is_that_of_drawing_lines_with_all_their_characters() -> None:
    generator = np.random.default_rng(0)
    held = generator.integers(1, 6, 400)
    pairs = [(int(n), int(generator.binomial(n, 0.7))) for n in held]
    drawn = generator.integers(0, 400, (4000, 400))
    read = np.array([r for _, r in pairs])
    shares = read[drawn].sum(1) / held[drawn].sum(1)
    low, high = share_interval(pairs, 0)
    assert low == pytest.approx(np.quantile(shares, 0.025), abs=0.004)
    assert high == pytest.approx(np.quantile(shares, 0.975), abs=0.004)
    assert share_interval([(2, 2), (3, 3)], 0) == (1.0, 1.0)


def test_a_line_without_letters_or_digits_does_not_count_in_acc36() -> None:
    assert LineResult("key", "...", "..", 1.0, True).right36 is None
    assert LineResult("key", "A.", "a", 1.0, True).right36 is True
