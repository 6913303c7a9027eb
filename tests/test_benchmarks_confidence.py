"""How sure and how right: the calibration error and the curve of risk against coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.confidence import STEPS, calibration_error, confidence_figures, kept_accuracy


def slow_error(confidences: list[float], right: list[bool], bins: int) -> float:
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        own = [i for i, c in enumerate(confidences) if low < c <= high or (number == 0 and c == 0)]
        if own:
            accuracy = sum(right[i] for i in own) / len(own)
            sure = sum(confidences[i] for i in own) / len(own)
            total += len(own) / len(confidences) * abs(accuracy - sure)
    return total


def test_the_calibration_error_is_the_mean_gap_of_its_bins() -> None:
    generator = np.random.default_rng(0)
    confidences = generator.random(500).tolist()
    right = (generator.random(500) < np.array(confidences) ** 2).tolist()
    assert calibration_error(confidences, right, 10) == pytest.approx(slow_error(confidences, right, 10))


def test_who_is_right_as_often_as_sure_has_no_calibration_error() -> None:
    assert calibration_error([0.5, 0.5, 1.0, 0.0], [True, False, True, False]) == pytest.approx(0)


def test_who_is_sure_and_always_wrong_has_the_greatest() -> None:
    assert calibration_error([1.0, 1.0], [False, False]) == pytest.approx(1)


def test_the_surest_are_kept_first() -> None:
    assert kept_accuracy([0.2, 0.9, 0.5], [False, True, True]) == pytest.approx([1, 1, 2 / 3])


def test_the_order_of_equally_sure_lines_does_not_matter() -> None:
    one, other = (kept_accuracy([0.5] * 4, right) for right in ([True, False, False, True], [False, True, True, False]))
    assert one == other == pytest.approx([0.5] * 4)


def test_the_share_kept_is_the_greatest_with_so_few_errors() -> None:
    confidences = [1 - i / 100 for i in range(100)]
    found = confidence_figures(confidences, [i not in (60, 61, 62) for i in range(100)])
    assert found is not None
    assert found["kept"] == {"0.01": 0.6, "0.05": 1.0}
    assert found["accuracy"] == pytest.approx(0.97)
    assert len(found["accuracy_of_surest"]) == STEPS
    assert found["accuracy_of_surest"][0] == 1.0


def test_without_lines_there_is_nothing_to_tell() -> None:
    assert confidence_figures([], []) is None
    assert math.isnan(calibration_error([], []))
