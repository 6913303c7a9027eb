"""ONNX in int8: the trunk on grids, between QuantizeLinear and DequantizeLinear; the recurrent part in two ways.

Convolutions have int8 weights, a scale a channel, and uint8 activations: the only layout that onnxruntime runs fast on
x86. Runtimes melt each convolution with the pairs around it into one integer kernel. The recurrent part and the
classifier are either computed in int8 with scales found while running (onnxruntime's own LSTM operator, one scale for
a whole batch, so lines are read singly), or only stored in int8 and computed in float32 by standard operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from onnx import TensorProto, helper

from crnn.checkpoint import ModelInfo
from crnn.quantisation import channel_scales, convolution_scales, integer_bias, quantise_weight
from export.float_onnx import MICROSOFT, NO_WEIGHTS, OnnxNodes, Storage, finish, lstm_bias, onnx_gates
from export.operators import (
    INPUT,
    Activation,
    Add,
    Conv,
    GlobalAveragePool,
    Graph,
    Linear,
    Lstm,
    MaxPool,
    Operator,
    ScaleChannels,
)
from export.report import Written

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.calibration import Quantisation

KEPT = "kept in float: it cost too much accuracy"
BETWEEN_FLOATS = "its inputs are float, for what makes them was kept in float"
BEHIND_TRUNK = "behind the trunk values are float32, so that neither sequences nor classes lie on a coarse grid"
WEIGHTS_ONLY = "a standard LSTM node takes no integers, so they are made float when the file is loaded"
STORED = "int8 per channel"
ON_GRID: Storage = ("none", "uint8", "")

Grown = TypeVar("Grown", Conv, Add)


def write_int8_onnx(graph: Graph, info: ModelInfo, quantisation: Quantisation) -> Written:
    """Everything with weights in int8, computed in int8; needs onnxruntime."""
    return finish(Int8OnnxNodes(graph.operators, quantisation), graph, info)


def write_portable_onnx(graph: Graph, info: ModelInfo, quantisation: Quantisation) -> Written:
    """All weights in int8, in standard operators alone; recurrent part and classifier compute in float32."""
    return finish(PortableOnnxNodes(graph.operators, quantisation), graph, info)


class Int8OnnxNodes(OnnxNodes):
    """A value that lies on a grid has a twin: NAME.on_grid, quantised and dequantised, which consumers read."""

    def __init__(self, operators: Sequence[Operator], quantisation: Quantisation) -> None:
        super().__init__(operators)
        self._ranges, self._keep_float = quantisation.ranges, quantisation.keep_float
        self._twins: dict[str, str] = {}

    def _write(self, operator: Operator) -> Storage:
        storage = super()._write(operator)
        return ("none", "float32", BEHIND_TRUNK) if storage == NO_WEIGHTS else storage

    def _read(self, value: str) -> str:
        return self._twins.get(value, value)

    def _on_grid(self, value: str, source: str | None = None) -> str:
        """The value's twin; source: the name of its float values where that is not its own."""
        if value not in self._twins:
            found = self._ranges[value]
            scale = self._constant(f"{value}.scale", np.array(found.scale, np.float32))
            zero = self._constant(f"{value}.zero", np.array(found.zero_point, np.uint8))
            integers = self._node("QuantizeLinear", [source or value, scale, zero], f"{value}.integers")
            self._twins[value] = self._node("DequantizeLinear", [integers, scale, zero], f"{value}.on_grid")
        return self._twins[value]

    def _all_on_grid(self, *values: str) -> bool:
        return all(value in self._twins or value == INPUT for value in values)

    def _conv(self, conv: Conv) -> Storage:
        name = conv.output
        if name in self._keep_float:
            super()._conv(conv)
            return "float32", "float32", KEPT
        input_scale = self._ranges[conv.input].scale
        scales = convolution_scales(conv.weight, conv.bias, input_scale)
        weight_scale = self._constant(f"{name}.weight.scale", scales)
        weight_zero = self._constant(f"{name}.weight.zero", np.zeros(len(scales), np.int8))
        weight = self._node(
            "DequantizeLinear",
            [self._constant(f"{name}.weight.int8", quantise_weight(conv.weight, scales)), weight_scale, weight_zero],
            f"{name}.weight",
            axis=0,
        )
        bias_scale = self._constant(f"{name}.bias.scale", scales * np.float32(input_scale))
        integers = self._constant(f"{name}.bias.int32", integer_bias(conv.bias, scales, input_scale))
        bias = self._node("DequantizeLinear", [integers, bias_scale], f"{name}.bias", axis=0)
        self._convolve(self._without_relu(conv), [self._on_grid(conv.input), weight, bias])
        self._on_grid(name)
        return STORED, "uint8", ""

    def _without_relu(self, operator: Grown) -> Grown:
        """Before a grid that begins at zero a ReLU does nothing that the grid does not, and would only hide the sum."""
        begins_at_zero = self._ranges[operator.output].zero_point == 0
        return replace(operator, activation="none") if operator.activation == "relu" and begins_at_zero else operator

    def _activate(self, linear: str, output: str, activation: Activation) -> None:
        if activation in ("hardswish", "hardsigmoid") and linear in self._ranges and output not in self._keep_float:
            linear = self._on_grid(linear)
        super()._activate(linear, output, activation)

    def _max_pool(self, pool: MaxPool) -> Storage:
        return self._gridded(super()._max_pool, pool, pool.input)

    def _add(self, add: Add) -> Storage:
        plain = self._without_relu(add) if self._all_on_grid(add.left, add.right) else add
        return self._gridded(super()._add, plain, add.left, add.right)

    def _average_pool(self, pool: GlobalAveragePool) -> Storage:
        return self._gridded(super()._average_pool, pool, pool.input)

    def _scale_channels(self, scaled: ScaleChannels) -> Storage:
        return self._gridded(super()._scale_channels, scaled, scaled.input, scaled.factors)

    def _gridded(self, write: Callable[[Any], Storage], operator: Operator, *inputs: str) -> Storage:
        """An operator without weights is on grids where all its inputs are."""
        if not self._all_on_grid(*inputs):
            write(operator)
            return "none", "float32", BETWEEN_FLOATS
        for value in inputs:
            self._on_grid(value)
        write(operator)
        self._on_grid(operator.output)
        return ON_GRID

    def _lstm(self, lstm: Lstm) -> Storage:
        name, both = lstm.output, lstm.directions
        if name in self._keep_float:
            super()._lstm(lstm)
            return "float32", "float32", KEPT
        weights = {
            "W": np.stack([onnx_gates(d.input_weight).T for d in both]),  # (directions, in, 4 * hidden)
            "R": np.stack([onnx_gates(d.recurrent_weight).T for d in both]),  # (directions, hidden, 4 * hidden)
        }
        stored, grids = [], []
        for key, weight in weights.items():
            scales = np.stack([channel_scales(w, axis=1) for w in weight])  # (directions, 4 * hidden)
            integers = np.stack([quantise_weight(w, s, axis=1) for w, s in zip(weight, scales, strict=True)])
            stored.append(self._constant(f"{name}.{key}.int8", integers))
            grids.append(self._constant(f"{name}.{key}.scale", scales))
            grids.append(self._constant(f"{name}.{key}.zero", np.zeros(scales.shape, np.int8)))
        bias = self._constant(f"{name}.B", np.stack([lstm_bias(d) for d in both]))
        inputs = [lstm.input, *stored, bias, "", "", "", "", *grids]  # no lengths, no first states, no peepholes
        self._recur(lstm, "DynamicQuantizeLSTM", inputs, domain=MICROSOFT)
        return STORED, "float32 outside, int8 with one scale a call inside", ""

    def _linear(self, linear: Linear) -> Storage:
        name = linear.output
        if name in self._keep_float:
            super()._linear(linear)
            return "float32", "float32", KEPT
        scales = channel_scales(linear.weight)
        integers = self._constant(f"{name}.weight.int8", quantise_weight(linear.weight, scales).T)  # (in, out)
        seen = [f"{name}.input.{made}" for made in ("integers", "scale", "zero")]
        self.made.append(helper.make_node("DynamicQuantizeLinear", [linear.input], seen, name=f"{name}.input"))
        zero = self._constant(f"{name}.weight.zero", np.array(0, np.int8))
        product = self._node("MatMulInteger", [seen[0], integers, seen[2], zero], f"{name}.product.integers")
        floats = self._node("Cast", [product], f"{name}.product.cast", to=TensorProto.FLOAT)
        scale = self._node("Mul", [seen[1], self._constant(f"{name}.weight.scale", scales)], f"{name}.product.scale")
        scaled = self._node("Mul", [floats, scale], f"{name}.product")
        self._node("Add", [scaled, self._constant(f"{name}.bias", linear.bias)], name)
        return STORED, "float32 outside, uint8 with one scale a call inside", ""


class PortableOnnxNodes(Int8OnnxNodes):
    """Recurrent part and classifier: int8 weights times their scales, which runtimes multiply out once, at loading."""

    def _lstm(self, lstm: Lstm) -> Storage:
        OnnxNodes._lstm(self, lstm)
        return self._stored(lstm.output)

    def _linear(self, linear: Linear) -> Storage:
        OnnxNodes._linear(self, linear)
        return self._stored(linear.output)

    def _stored(self, name: str) -> Storage:
        return ("float32", "float32", KEPT) if name in self._keep_float else (STORED, "float32", WEIGHTS_ONLY)

    def _weight(self, name: str, value: NDArray[np.float32], axis: int = 0) -> str:
        if name.rpartition(".")[0] in self._keep_float:
            return super()._weight(name, value, axis)
        parts = value if value.ndim == 3 else value[None]  # the directions of an LSTM, or the one linear layer
        along = axis - (value.ndim - 2)
        scales = [channel_scales(part, along) for part in parts]
        integers = [quantise_weight(part, s, along) for part, s in zip(parts, scales, strict=True)]
        shape = [len(parts), 1, 1]
        shape[along + 1] = -1
        factors = np.stack(scales).reshape(shape)  # as many axes as the weight, 1 but for the channels
        if value.ndim == 2:
            integers, factors = [integers[0]], factors[0]
        whole = np.stack(integers) if value.ndim == 3 else integers[0]
        floats = self._node("Cast", [self._constant(f"{name}.int8", whole)], f"{name}.cast", to=TensorProto.FLOAT)
        return self._node("Mul", [floats, self._constant(f"{name}.scale", factors)], name)
