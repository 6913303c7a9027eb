"""TFLite in five forms, each written operator by operator with builtin operators only.

The file takes `pictures` (1, height, W, C): TFLite computes with channels last, so who reads the file brings pictures
(C, height, W) into that order, as LiteRtRuntime does. It gives `log_probs` (1, T, K). The width is free but for the
fixed form; the batch is 1, one line at a time. Nothing is kept from one run to the next.

The metadata hold the model's JSON under `pocket_crnn`, the characters under `character` as in ONNX, and the order of
axes under `layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from crnn.checkpoint import ModelInfo
from crnn.quantisation import channel_scales, convolution_scales, integer_bias, quantise_weight
from export.calibration import Quantisation
from export.flatbuffer import Flatbuffer, Grid, Subgraph, Tensor
from export.float_onnx import metadata
from export.operators import (
    INPUT,
    OUTPUT,
    Activation,
    Add,
    Conv,
    GlobalAveragePool,
    Graph,
    Linear,
    LogSoftmax,
    Lstm,
    MaxPool,
    MeanOverHeight,
    Operator,
    Pair,
    ScaleChannels,
)
from export.report import OperatorReport, Written
from export.tflite_lstm import write_lstm

LAYOUT = "pictures: 1, height, width, channels; log_probs: 1, columns, classes"

WIDTH = 128
"""Pixels; what a file of free width is opened with."""

Storage = Literal["float32", "float16", "int8"]

ROWS, COLUMNS = 1, 2
"""Axes of a map (1, rows, columns, channels)."""

STEPS = 1
"""Axis of a sequence (1, T, features)."""

NONE, RELU, RELU6 = (getattr(schema.ActivationFunctionType, name) for name in ("NONE", "RELU", "RELU6"))

DYNAMIC = "float32, int8 inside"
"""Activations that a kernel brings to int8 itself, by the range they have at that moment."""

WITHOUT_WEIGHTS = "only operators with weights are int8 where ranges are found while reading"
BEHIND_TRUNK = "only the trunk has calibrated ranges"
BETWEEN_GRIDS = "the activation is computed in float32 between two grids, which is right and fast in every LiteRT"
ASKED = "kept in float32, for int8 cost too much accuracy here"
GATES = "biases, gates and states are float32"
SLOW_DEPTHWISE = "LiteRT is slower with int8 than with float32 in a depthwise convolution without calibrated ranges"


def write_float_tflite(graph: Graph, info: ModelInfo, quantisation: Quantisation) -> Written:
    """Float32 throughout."""
    return write_tflite(graph, info, quantisation, "float32")


def write_half_tflite(graph: Graph, info: ModelInfo, quantisation: Quantisation) -> Written:
    """Weights in half precision, behind operators that make them float32; all arithmetic in float32."""
    return write_tflite(graph, info, quantisation, "float16")


def write_int8_tflite(graph: Graph, info: ModelInfo, quantisation: Quantisation) -> Written:
    """Weights int8; activations float32, brought to int8 for each product by the range they have at that moment."""
    return write_tflite(graph, info, quantisation, "int8")


def write_calibrated_tflite(graph: Graph, info: ModelInfo, quantisation: Quantisation) -> Written:
    """The trunk int8 on the grids of quantisation.ranges, LSTMs and linear layers as in write_int8_tflite."""
    return write_tflite(graph, info, quantisation, "int8", calibrated=True)


def write_fixed_tflite(graph: Graph, info: ModelInfo, quantisation: Quantisation) -> Written:
    """Float32 at the one width of info.input_spec: what LiteRT's CompiledModel and accelerators ask for."""
    return write_tflite(graph, info, quantisation, "float32", fixed=True)


def write_tflite(
    graph: Graph,
    info: ModelInfo,
    quantisation: Quantisation,
    weights: Storage,
    calibrated: bool = False,
    fixed: bool = False,
) -> Written:
    """A TFLite file with info as its metadata, and what is in it.

    weights: how they are stored where nothing speaks against it.
    calibrated: activations of the trunk are int8, on the grids of quantisation.ranges.
    fixed: the width is info.input_spec.min_width and no other, so all shapes are known beforehand.
    ValueError naming the operator where TFLite has none for it, or the value that the ranges lack.
    """
    spec = info.input_spec
    width = spec.min_width if fixed else min(max(WIDTH, spec.min_width), spec.max_width)
    model = _Model(quantisation, weights, calibrated, fixed)
    pictures = model.begin((1, graph.height, width, graph.channels))
    reports = tuple(model.write(operator) for operator in graph.operators)
    described = metadata(info) | {"layout": LAYOUT}
    content = model.file.finish({INPUT: pictures}, {OUTPUT: model.float32(OUTPUT)}, described)
    return Written(content, reports)


@dataclass
class _Value:
    """A value of the graph in the forms that operators have asked for so far."""

    float32: Tensor | None = None
    int8: Tensor | None = None


class _Done(NamedTuple):
    """What an OperatorReport says beside name, kind and bytes."""

    weights: str
    activations: str
    reason: str = ""


class _Model:
    """The operators of one file, written in turn."""

    def __init__(self, quantisation: Quantisation, weights: Storage, calibrated: bool, fixed: bool) -> None:
        self.file = Flatbuffer()
        self.main = self.file.subgraph("main")
        self._ranges, self._keep_float = quantisation.ranges, quantisation.keep_float
        self._weights, self._calibrated, self._fixed = weights, calibrated, fixed
        self._version = 2 if calibrated else 1  # of most operators, the least that knows int8
        self._values: dict[str, _Value] = {}
        self._never_negative: set[str] = set()
        self._bytes = 0  # of the current operator's weights

    def begin(self, shape: Sequence[int]) -> Tensor:
        """Adds the graph's input."""
        pictures = self.main.tensor(INPUT, shape, free=None if self._fixed else COLUMNS)
        self._values[INPUT] = _Value(float32=pictures)
        return pictures

    def write(self, operator: Operator) -> OperatorReport:
        self._bytes = 0
        match operator:
            case Conv():
                done = self._conv(operator)
            case MaxPool():
                done = self._max_pool(operator)
            case Add():
                done = self._add(operator)
            case GlobalAveragePool():
                done = self._global_average_pool(operator)
            case ScaleChannels():
                done = self._scale_channels(operator)
            case MeanOverHeight():
                done = self._mean_over_height(operator)
            case Lstm():
                done = self._lstm(operator)
            case Linear():
                done = self._linear(operator)
            case LogSoftmax():
                done = self._log_softmax(operator)
        name, kind = operator.output, type(operator).__name__
        return OperatorReport(name, kind, done.weights, done.activations, self._bytes, done.reason)

    # values

    def float32(self, name: str) -> Tensor:
        """A value in float32."""
        value = self._values[name]
        if value.float32 is None:
            assert value.int8 is not None
            value.float32 = self.main.made(
                "DEQUANTIZE", [value.int8], f"{name}.float32", schema.DequantizeOptionsT(), 2
            )
        return value.float32

    def int8(self, name: str) -> Tensor:
        """A value on its grid."""
        value = self._values[name]
        if value.int8 is None:
            assert value.float32 is not None
            options = schema.QuantizeOptionsT()
            value.int8 = self.main.made("QUANTIZE", [value.float32], f"{name}.int8", options, grid=self._grid(name))
        return value.int8

    def _grid(self, name: str) -> Grid:
        if name not in self._ranges:
            raise ValueError(
                f"there is no range for the value {name}, so it cannot be int8; calibrate this very network"
            )
        found = self._ranges[name]
        return Grid(np.array([found.scale], np.float32), found.zero_point - 128)

    def _constant(self, graph: Subgraph, name: str, values: NDArray[Any], grid: Grid | None = None) -> Tensor:
        """A constant that counts among the current operator's weights."""
        self._bytes += values.nbytes + (0 if grid is None else grid.scales.nbytes)
        return graph.constant(name, values, grid)

    def _weight(self, graph: Subgraph, name: str, values: NDArray[np.float32], storage: Storage) -> Tensor:
        """Weights as they are stored, behind what makes them float32 where they are half precision."""
        if storage == "float16":
            half = self._constant(graph, f"{name}.half", values.astype(np.float16))
            return graph.made("DEQUANTIZE", [half], name, schema.DequantizeOptionsT(), 3)
        return self._constant(graph, name, values)

    # maps (1, rows, columns, channels)

    def _conv(self, conv: Conv) -> _Done:
        _require_known(conv)
        name, kept, depthwise = conv.output, conv.output in self._keep_float, conv.groups > 1
        slow = depthwise and self._weights == "int8" and not self._calibrated
        storage: Storage = "float32" if kept or slow else self._weights
        integer = self._calibrated and not kept
        source = self.int8(conv.input) if integer else self.float32(conv.input)
        cells = _swept(source.shape, (conv.weight.shape[2], conv.weight.shape[3]), conv.stride, conv.padding)
        same = _is_same(source.shape, cells, conv)
        if not same:
            source = self._padded(source, f"{name}.padded", conv.padding)
        fields = {
            "padding": schema.Padding.SAME if same else schema.Padding.VALID,
            "strideH": conv.stride[0],
            "strideW": conv.stride[1],
            "fusedActivationFunction": RELU if conv.activation == "relu" else NONE,
        }
        if depthwise:
            kind, version = "DEPTHWISE_CONV_2D", 3 if integer else 1
            options = schema.DepthwiseConv2DOptionsT(depthMultiplier=len(conv.weight) // conv.groups, **fields)
        else:
            kind, version = "CONV_2D", 3 if integer else 5 if storage == "int8" else 1
            options = schema.Conv2DOptionsT(**fields)
        inputs = [source, *self._kernel(conv, storage, source.grid)]
        before = _before_activation(name, conv.activation)
        grid = self._grid(before) if integer else None
        made = self.main.made(kind, inputs, before, options, version, (1, *cells, len(conv.weight)), grid)
        self._activate(name, conv.activation, made)
        if integer:
            return _Done("int8 per channel", "int8", BETWEEN_GRIDS if before != name else "")
        if storage == "int8":
            return _Done("int8 per channel", DYNAMIC)
        return _Done(storage, "float32", SLOW_DEPTHWISE if slow else ASKED if kept and self._weights == "int8" else "")

    def _kernel(self, conv: Conv, storage: Storage, source: Grid | None) -> tuple[Tensor, Tensor]:
        """Weight and bias. source: the grid of what is convolved, where that is int8."""
        # torch has (out, in, rows, columns); a depthwise weight is (1, rows, columns, out) here
        order, axis = ((1, 2, 3, 0), 3) if conv.groups > 1 else ((0, 2, 3, 1), 0)
        weight, bias, scales = conv.weight.transpose(order), conv.bias, channel_scales(conv.weight)
        if source is None:
            stored_bias = self._constant(self.main, f"{conv.output}.bias", bias)
        else:  # integers of the sum, whose steps are those of weight times source
            (step,) = source.scales.tolist()
            scales = convolution_scales(conv.weight, bias, step)
            sums = integer_bias(bias, scales, step)
            stored_bias = self._constant(self.main, f"{conv.output}.bias", sums, Grid(scales * np.float32(step)))
        name = f"{conv.output}.weight"
        if storage != "int8":
            return self._weight(self.main, name, weight, storage), stored_bias
        integers = quantise_weight(weight, scales, axis)
        return self._constant(self.main, name, integers, Grid(scales, 0, axis)), stored_bias

    def _activate(self, name: str, activation: Activation, made: Tensor) -> None:
        """Makes the value of what comes before its activation; a ReLU is already part of that."""
        before = _before_activation(name, activation)
        self._values[before] = _Value(float32=made) if made.grid is None else _Value(int8=made)
        if activation == "relu":
            self._never_negative.add(name)
        if before == name:
            return
        source = self.float32(before)
        if activation == "hardswish":
            output = self.main.made("HARD_SWISH", [source], name, schema.HardSwishOptionsT())
        else:  # min(max(x + 3, 0), 6) / 6
            three = self.main.shared("three", np.array([3], np.float32))
            sixth = self.main.shared("sixth", np.array([1 / 6], np.float32))
            options = schema.AddOptionsT(fusedActivationFunction=RELU6)
            shifted = self.main.made("ADD", [source, three], f"{name}.shifted", options)
            output = self.main.made("MUL", [shifted, sixth], name, schema.MulOptionsT())
        self._values[name] = _Value(float32=output)

    def _padded(self, source: Tensor, name: str, padding: Pair, least: bool = False) -> Tensor:
        """A map with as many cells more at the start as at the end: of zeros, or of the least number there is."""
        if padding == (0, 0):
            return source
        (rows, columns), (_, height, width, channels) = padding, source.shape
        shape = (1, height + 2 * rows, width + 2 * columns, channels)
        around = self.main.shared(f"{name}.padding", np.array([[0, 0], [rows] * 2, [columns] * 2, [0, 0]], np.int32))
        version = 1 if source.grid is None else 2
        if not least:
            return self.main.made("PAD", [source, around], name, schema.PadOptionsT(), version, shape, source.grid)
        lowest = np.array([np.finfo(np.float32).min]) if source.grid is None else np.array([-128], np.int8)
        inputs = [source, around, self.main.constant(f"{name}.least", lowest, source.grid)]
        return self.main.made("PADV2", inputs, name, schema.PadV2OptionsT(), version, shape, source.grid)

    def _max_pool(self, pool: MaxPool) -> _Done:
        source = self._trunk_value(pool.input)
        # padding counts as minus infinity; zeros do the same where nothing is below them, and are padded faster
        zeros = pool.input in self._never_negative
        padded = self._padded(source, f"{pool.output}.padded", pool.padding, least=not zeros)
        options = schema.Pool2DOptionsT(
            padding=schema.Padding.VALID,
            strideH=pool.stride[0],
            strideW=pool.stride[1],
            filterHeight=pool.kernel[0],
            filterWidth=pool.kernel[1],
        )
        shape = (1, *_swept(source.shape, pool.kernel, pool.stride, pool.padding), source.shape[3])
        made = self.main.made("MAX_POOL_2D", [padded], pool.output, options, self._version, shape, padded.grid)
        self._activate(pool.output, "none", made)
        return self._without_weights()

    def _add(self, add: Add) -> _Done:
        before = _before_activation(add.output, add.activation)
        options = schema.AddOptionsT(fusedActivationFunction=RELU if add.activation == "relu" else NONE)
        inputs = [self._trunk_value(add.left), self._trunk_value(add.right)]
        made = self.main.made("ADD", inputs, before, options, self._version, grid=self._trunk_grid(before))
        self._activate(add.output, add.activation, made)
        return self._without_weights()

    def _global_average_pool(self, pool: GlobalAveragePool) -> _Done:
        source = self._trunk_value(pool.input)
        axes = self.main.shared("rows and columns", np.array([ROWS, COLUMNS], np.int32))
        output = self.main.tensor(pool.output, (1, 1, 1, source.shape[3]), self._trunk_grid(pool.output))
        self.main.operator("MEAN", [source, axes], [output], schema.ReducerOptionsT(keepDims=True), self._version)
        self._activate(pool.output, "none", output)
        return self._without_weights()

    def _scale_channels(self, scale: ScaleChannels) -> _Done:
        inputs, grid = (
            [self._trunk_value(scale.input), self._trunk_value(scale.factors)],
            self._trunk_grid(scale.output),
        )
        made = self.main.made("MUL", inputs, scale.output, schema.MulOptionsT(), self._version, grid=grid)
        self._activate(scale.output, "none", made)
        return self._without_weights()

    def _trunk_value(self, name: str) -> Tensor:
        return self.int8(name) if self._calibrated else self.float32(name)

    def _trunk_grid(self, name: str) -> Grid | None:
        return self._grid(name) if self._calibrated else None

    def _without_weights(self) -> _Done:
        if self._calibrated:
            return _Done("none", "int8")
        return _Done("none", "float32", WITHOUT_WEIGHTS if self._weights == "int8" else "")

    # sequences (1, T, features)

    def _mean_over_height(self, mean: MeanOverHeight) -> _Done:
        source = self.float32(mean.input)
        axes = self.main.shared("rows", np.array([ROWS], np.int32))
        steps, features = source.shape[COLUMNS], source.shape[3]
        output = self.main.tensor(mean.output, (1, steps, features), free=None if self._fixed else STEPS)
        self.main.operator("MEAN", [source, axes], [output], schema.ReducerOptionsT(keepDims=False))
        self._values[mean.output] = _Value(float32=output)
        return self._behind_trunk()

    def _lstm(self, lstm: Lstm) -> _Done:
        storage: Storage = "float32" if lstm.output in self._keep_float else self._weights
        product = partial(self._product, storage)
        output = write_lstm(self.file, self.main, lstm, self.float32(lstm.input), product)
        self._values[lstm.output] = _Value(float32=output)
        return self._of_products(storage, GATES)

    def _linear(self, layer: Linear) -> _Done:
        storage: Storage = "float32" if layer.output in self._keep_float else self._weights
        source = self.float32(layer.input)
        output = self._product(storage, self.main, layer.output, source, layer.weight, layer.bias)
        self._values[layer.output] = _Value(float32=output)
        return self._of_products(storage)

    def _of_products(self, storage: Storage, reason: str = "") -> _Done:
        """reason: why the rest is not int8 where products are."""
        if storage == "int8":
            return _Done("int8 per channel", DYNAMIC, reason)
        return _Done(storage, "float32", ASKED if self._weights == "int8" else "")

    def _product(
        self,
        storage: Storage,
        graph: Subgraph,
        name: str,
        source: Tensor,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
    ) -> Tensor:
        """(1, T, in) times weight (out, in), plus bias (out,): (1, T, out)."""
        shape = (*source.shape[:2], len(weight))
        options = schema.FullyConnectedOptionsT(keepNumDims=True)
        shift = None if bias is None else self._constant(graph, f"{name}.bias", bias)
        if storage != "int8":
            inputs = [source, self._weight(graph, f"{name}.weight", weight, storage), shift]
            return graph.made("FULLY_CONNECTED", inputs, name, options, 5, shape)
        # Not every kernel knows one scale for each channel here, so products of integers are scaled behind it.
        scales = channel_scales(weight)
        integers = self._constant(
            graph, f"{name}.weight", quantise_weight(weight, scales), Grid(np.ones(1, np.float32))
        )
        factors = self._constant(graph, f"{name}.scales", scales)
        product = graph.made("FULLY_CONNECTED", [source, integers, None], f"{name}.integers", options, 5, shape)
        scaled = graph.made("MUL", [product, factors], f"{name}.product", schema.MulOptionsT())
        return scaled if shift is None else graph.made("ADD", [scaled, shift], name, schema.AddOptionsT())

    def _log_softmax(self, softmax: LogSoftmax) -> _Done:
        output = self.main.made(
            "LOG_SOFTMAX", [self.float32(softmax.input)], softmax.output, schema.LogSoftmaxOptionsT()
        )
        self._values[softmax.output] = _Value(float32=output)
        return self._behind_trunk()

    def _behind_trunk(self) -> _Done:
        if self._calibrated:
            return _Done("none", "float32", BEHIND_TRUNK)
        return self._without_weights()


def _before_activation(name: str, activation: Activation) -> str:
    """The value that an activation is computed from; a ReLU is part of what makes the value itself."""
    return name if activation in ("none", "relu") else f"{name}.linear"


def _swept(shape: Sequence[int], kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """(rows, columns) of what a window makes of a map (1, rows, columns, channels)."""
    rows, columns = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape[1:3], kernel, stride, padding, strict=True))
    return rows, columns


def _is_same(shape: Sequence[int], cells: Pair, conv: Conv) -> bool:
    """Whether TFLite's SAME pads as torch does: both sides alike.

    SAME leaves size / stride cells and pads no more than these need, the end more than the start where it cannot halve.
    """
    kernel = conv.weight.shape[2:]
    if (conv.stride[1], kernel[1]) != (1, 2 * conv.padding[1] + 1):  # with a stride it would depend on the width
        return False
    needed = (cells[0] - 1) * conv.stride[0] + kernel[0] - shape[ROWS]
    return cells[0] == -(-shape[ROWS] // conv.stride[0]) and max(needed, 0) == 2 * conv.padding[0]


def _require_known(conv: Conv) -> None:
    """ValueError where TFLite, or some runtime of it, computes no such convolution."""
    if conv.groups > 1 and conv.weight.shape[1] > 1:
        raise ValueError(
            f"the convolution {conv.output} has {conv.groups} groups of {conv.weight.shape[1]} channels, which the "
            "TFLite writer does not know; use groups of one channel, or none"
        )
    if conv.dilation != (1, 1):
        raise ValueError(
            f"the convolution {conv.output} has dilation {conv.dilation}, which the TFLite writer does not know; "
            "use a convolution without dilation"
        )
