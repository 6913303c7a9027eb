"""The int8 scheme."""

from __future__ import annotations

import numpy as np
import pytest

from crnn.quantisation import (
    Range,
    channel_scales,
    convolution_scales,
    integer_bias,
    quantise_weight,
)


def random_weight(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(3).normal(0, 0.1, shape).astype(np.float32)


def test_a_weight_comes_back_within_half_a_step_of_its_channel() -> None:
    weight = random_weight(5, 3, 3, 3) * np.arange(1, 6, dtype=np.float32)[:, None, None, None]
    scales = channel_scales(weight)
    back = quantise_weight(weight, scales) * scales[:, None, None, None]
    assert np.all(np.abs(back - weight) <= scales[:, None, None, None] * 0.5001)


def test_the_largest_weight_of_every_channel_is_the_largest_integer() -> None:
    weight = random_weight(4, 6)
    integers = quantise_weight(weight, channel_scales(weight))
    assert np.abs(integers).max(axis=1).tolist() == [127] * 4
    along_columns = quantise_weight(weight, channel_scales(weight, axis=1), axis=1)
    assert np.abs(along_columns).max(axis=0).tolist() == [127] * 6


def test_a_weight_and_its_negative_have_opposite_integers() -> None:
    weight = random_weight(4, 6)
    scales = channel_scales(weight)
    assert np.array_equal(quantise_weight(-weight, scales), -quantise_weight(weight, scales))


def test_halves_are_rounded_to_even() -> None:
    weight = np.array([[127, 0.5, 1.5, -0.5, -1.5]], np.float32)
    assert quantise_weight(weight, channel_scales(weight)).tolist() == [[127, 0, 2, 0, -2]]


def test_a_grid_holds_zero_exactly() -> None:
    for low, high in ((-1.7, 5.3), (0, 2.2), (-3, 0), (-0.01, 900)):
        grid = Range(low, high)
        assert 0 <= grid.zero_point <= 255
        assert (np.rint(0 / grid.scale) + grid.zero_point - grid.zero_point) * grid.scale == 0


def test_the_grid_of_a_relu_begins_at_zero() -> None:
    assert Range(0, 4.2).zero_point == 0


def test_both_ends_of_a_range_lie_within_a_step_of_its_grid() -> None:
    grid = Range(-1.7, 5.3)
    assert (0 - grid.zero_point) * grid.scale == pytest.approx(-1.7, abs=grid.scale)
    assert (255 - grid.zero_point) * grid.scale == pytest.approx(5.3, abs=grid.scale)


def test_a_range_grows_with_what_is_seen_and_always_holds_zero() -> None:
    found = Range.of(np.array([1, 3], np.float32)) | Range.of(np.array([-2, -1], np.float32))
    assert found == Range(-2, 3)


@pytest.mark.parametrize(("low", "high"), [(1, 2), (-2, -1), (0, float("inf")), (float("nan"), 1)])
def test_a_range_without_zero_or_end_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="hold zero and be finite"):
        Range(low, high)


def test_nothing_but_zeros_is_quantised_without_a_division_by_zero() -> None:
    weight = np.zeros((2, 3), np.float32)
    assert not quantise_weight(weight, channel_scales(weight)).any()
    assert Range(0, 0).scale > 0


def test_the_bias_of_a_channel_that_was_switched_off_still_fits() -> None:
    weight, bias = random_weight(3, 8), np.array([0.5, -7.0, 0.25], np.float32)
    weight[1] = 0
    scales = convolution_scales(weight, bias, 0.02)
    integers = integer_bias(bias, scales, 0.02)
    assert integers * scales.astype(np.float64) * 0.02 == pytest.approx(bias, rel=1e-4)
    assert np.array_equal(scales[[0, 2]], channel_scales(weight)[[0, 2]])
