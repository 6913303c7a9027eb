"""The int8 scheme: ranges, rounding and axes, defined once for simulation in training and for every exporter.

Weights are symmetric: an integer from -127 to 127 times a scale, one scale for each output channel (Jacob et al. 2018,
Krishnamoorthi 2018). Activations are affine: a grid of 256 steps for each value, which holds zero exactly, since zero
padding must. Both round half to even. A format that stores signed activations subtracts 128 from integer and zero point
alike, which is the same grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WEIGHT_LIMIT = 127
"""Largest integer of a weight. -128 is left out, so that a weight and its negative are equally exact."""

STEPS = 255
"""Steps of an activation's grid: integers 0 to 255."""

LEAST_SCALE = 1e-12
"""Of a channel whose weights are all zero."""


@dataclass(frozen=True)
class Range:
    """The values that an activation takes; zero is always among them."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= 0 <= self.high or not np.isfinite(self.high - self.low):
            raise ValueError(
                f"an activation's range must hold zero and be finite, and this one is {self}; calibrate anew"
            )

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> Range:
        """The range of what was seen."""
        return cls(min(0.0, float(values.min())), max(0.0, float(values.max())))

    def __or__(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))

    @property
    def scale(self) -> float:
        """Width of one step, as float32 holds it."""
        return float(np.float32(max((self.high - self.low) / STEPS, LEAST_SCALE)))

    @property
    def zero_point(self) -> int:
        """The integer, 0 to 255, that stands for zero."""
        return int(np.clip(np.rint(-self.low / self.scale), 0, STEPS))


def channel_scales(weight: NDArray[np.float32], axis: int = 0) -> NDArray[np.float32]:
    """Scales (channels,) of a weight, one for each index of axis."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others)
    scales: NDArray[np.float32] = np.maximum(largest / WEIGHT_LIMIT, LEAST_SCALE).astype(np.float32)
    return scales


def convolution_scales(
    weight: NDArray[np.float32], bias: NDArray[np.float32], input_scale: float
) -> NDArray[np.float32]:
    """channel_scales of a convolution (out, ...) whose bias is an int32 on the grid of its sums.

    Where a channel's weights are next to nothing beside its bias, as where BatchNorm has switched it off, the scale is
    made large enough for the bias to fit.
    """
    fitting = np.abs(bias) / np.float32(input_scale) / np.float32(2**30)
    return np.maximum(channel_scales(weight), fitting).astype(np.float32)


def integer_bias(bias: NDArray[np.float32], scales: NDArray[np.float32], input_scale: float) -> NDArray[np.int32]:
    """A convolution's bias on the grid of its sums. scales: of its weight."""
    return np.rint(bias.astype(np.float64) / (scales.astype(np.float64) * input_scale)).astype(np.int32)


def quantise_weight(weight: NDArray[np.float32], scales: NDArray[np.float32], axis: int = 0) -> NDArray[np.int8]:
    """The integers of a weight. scales: (channels,) along axis."""
    shape = [1] * weight.ndim
    shape[axis] = len(scales)
    integers = np.clip(np.rint(weight / scales.reshape(shape)), -WEIGHT_LIMIT, WEIGHT_LIMIT)
    return np.asarray(integers, np.int8)
