"""The few operators a recogniser consists of once it is trained: what every export format is written from.

Shapes as everywhere: N pictures, T columns, D features, H encoded, K classes. Maps are (N, channels, rows, columns).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]
Pair = tuple[int, int]
"""(rows, columns)."""

Activation = Literal["none", "relu", "hardswish", "hardsigmoid"]
"""hardsigmoid(x) = clip(x / 6 + 1/2, 0, 1); hardswish(x) = x * hardsigmoid(x) (Howard et al. 2019)."""

INPUT, OUTPUT = "pictures", "log_probs"
"""Names of the graph's input and output values, in every format that has names."""


@dataclass(frozen=True, eq=False)
class Conv:
    """2-d convolution, then the activation; zero padding of the same width on both sides.

    weight: (out, in / groups, rows, columns). bias: (out,).
    """

    output: str
    input: str
    weight: Weights
    bias: Weights
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    activation: Activation


@dataclass(frozen=True, eq=False)
class MaxPool:
    """Padding counts as minus infinity."""

    output: str
    input: str
    kernel: Pair
    stride: Pair
    padding: Pair


@dataclass(frozen=True, eq=False)
class Add:
    """Sum of two maps of one shape, then the activation."""

    output: str
    left: str
    right: str
    activation: Activation


@dataclass(frozen=True, eq=False)
class GlobalAveragePool:
    """Map (N, channels, rows, columns) -> (N, channels, 1, 1)."""

    output: str
    input: str


@dataclass(frozen=True, eq=False)
class ScaleChannels:
    """Map (N, channels, rows, columns) times factors (N, channels, 1, 1)."""

    output: str
    input: str
    factors: str


@dataclass(frozen=True, eq=False)
class MeanOverHeight:
    """Map (N, D, rows, T) -> sequence (N, T, D)."""

    output: str
    input: str


@dataclass(frozen=True, eq=False)
class LstmDirection:
    """One direction of an LSTM layer, the four gates stacked in torch's order: input, forget, cell, output.

    input_weight: (4 * hidden, in). recurrent_weight: (4 * hidden, hidden). Both biases: (4 * hidden,); they are
    added, and kept apart because some formats want both.
    """

    input_weight: Weights
    recurrent_weight: Weights
    input_bias: Weights
    recurrent_bias: Weights


@dataclass(frozen=True, eq=False)
class Lstm:
    """One layer over a sequence (N, T, in) -> (N, T, hidden * directions), states zero at the start of every line.

    directions: from left to right and, where there is a second, from right to left; outputs stand in this order.
    """

    output: str
    input: str
    directions: tuple[LstmDirection, ...]

    @property
    def hidden(self) -> int:
        return int(self.directions[0].recurrent_weight.shape[1])


@dataclass(frozen=True, eq=False)
class Linear:
    """(N, T, in) -> (N, T, out). weight: (out, in). bias: (out,)."""

    output: str
    input: str
    weight: Weights
    bias: Weights


@dataclass(frozen=True, eq=False)
class LogSoftmax:
    """Over the classes of (N, T, K)."""

    output: str
    input: str


Operator = Conv | MaxPool | Add | GlobalAveragePool | ScaleChannels | MeanOverHeight | Lstm | Linear | LogSoftmax


@dataclass(frozen=True, eq=False)
class Graph:
    """Operators in an order in which they can be computed, from INPUT (N, channels, height, W) to OUTPUT (N, T, K).

    A value is named after the module of the network that made it.
    """

    operators: tuple[Operator, ...]
    channels: int
    height: int
    classes: int

    @property
    def parameters(self) -> int:
        """Numbers in all weights; fewer than the network's, since BatchNorm is folded."""
        owners = [o for op in self.operators for o in (op.directions if isinstance(op, Lstm) else (op,))]
        values = [getattr(owner, field.name) for owner in owners for field in fields(owner)]
        return sum(v.size for v in values if isinstance(v, np.ndarray))
