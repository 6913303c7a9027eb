"""ncnn's two files, written straight from the graph: a list of layers in text, and the weights in half precision.

Neither ncnn nor its converter is needed to write them. ncnn knows no batch: a map is (channels, rows, columns), a
sequence (columns, features). A value has one reader there, so one with several goes through a layer Split. The files
stand in one zip with the model's JSON.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crnn.checkpoint import ModelInfo
from crnn.runtimes.archive import Archive, pack
from crnn.runtimes.ncnn_adapter import BIN, PARAM
from export.operators import (
    INPUT,
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
    ScaleChannels,
)
from export.report import OperatorReport, Written

if TYPE_CHECKING:
    from export.calibration import Quantisation

Value = float | Sequence[float]
"""Of a layer's parameter."""

MAGIC = 7767517
"""First line of the list of layers."""

HALF_TAG, FLOAT_TAG = 0x01306B47, 0
"""Before weights: the type in which they are stored."""

NCNN_GATES = (0, 1, 3, 2)
"""Where ncnn's gates (input, forget, output, cell) stand among torch's (input, forget, cell, output)."""

SUM, MEAN, MAX = 0, 3, 4
"""Of the layer Reduction."""

ADD, SUBTRACT, MULTIPLY = 0, 1, 2
"""Of the layer BinaryOp."""

EXP, LOG = 7, 8
"""Of the layer UnaryOp."""

ROWS, COLUMNS = 1, 2
"""Axes of a map, behind the channels."""

CLASSES = 1
"""Axis of the sequence of logits, behind the columns."""

FUSED: dict[Activation, dict[int, Value]] = {"relu": {9: 1}, "hardswish": {9: 6, 10: (1 / 6, 0.5)}}
"""What a convolution itself can do behind its sum."""


def write_ncnn(graph: Graph, info: ModelInfo, quantisation: Quantisation) -> Written:
    """A zip with crnn.param, crnn.bin and pocket_crnn.json; the same bytes every time."""
    layers = _Layers(graph.operators)
    for operator in graph.operators:
        layers.write(operator)
    files = {PARAM: layers.text().encode(), BIN: bytes(layers.weights)}
    return Written(pack(Archive(files, info, graph.parameters)), tuple(layers.reports))


class _Layers:
    """Lines of the list of layers, and the weights in the same order."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        self.weights = bytearray()
        self.reports: list[OperatorReport] = []
        self._lines: list[tuple[str, int]] = []  # with how many values it makes
        self._readers = Counter(value for operator in operators for value in inputs_of(operator))
        self._copies: dict[str, list[str]] = defaultdict(list)
        self._layer("Input", [], INPUT)

    def text(self) -> str:
        counts = f"{len(self._lines)} {sum(made for _, made in self._lines)}"
        return "\n".join([str(MAGIC), counts, *(line for line, _ in self._lines), ""])

    def write(self, operator: Operator) -> None:
        before = len(self.weights)
        match operator:
            case Conv():
                self._conv(operator)
            case MaxPool(output, input, (tall, wide), (down, along), (above, beside)):
                sizes = {1: wide, 11: tall, 2: along, 12: down, 3: beside, 14: beside, 13: above, 15: above}
                self._layer("Pooling", [input], output, {0: 0, **sizes, 5: 1})
            case Add(output, left, right, activation):
                self._activated("BinaryOp", [left, right], output, activation, {0: ADD})
            case GlobalAveragePool(output, input):
                self._reduce(MEAN, input, output, [ROWS, COLUMNS])
            case ScaleChannels(output, input, factors):
                self._layer("BinaryOp", [input, factors], output, {0: MULTIPLY})
            case MeanOverHeight(output, input):
                self._reduce(MEAN, input, f"{output}.mean", [ROWS], keep=False)  # (D, T)
                self._layer("Permute", [f"{output}.mean"], output, {0: 1})
            case Lstm():
                self._lstm(operator)
            case Linear(output, input, weight, bias):
                self._layer("InnerProduct", [input], output, {0: len(weight), 1: 1, 2: weight.size})
                self._store_half(weight, output)
                self.weights += bias.tobytes()
            case LogSoftmax(output, input):
                self._log_softmax(output, input)
            case _:
                kind = type(operator).__name__
                raise ValueError(
                    f"the {kind} at {operator.output} is none that ncnn files can hold; export to onnx instead"
                )
        stored = len(self.weights) - before
        kind = type(operator).__name__
        report = OperatorReport(operator.output, kind, "float16" if stored else "none", "float32", stored)
        self.reports.append(report)

    def _conv(self, conv: Conv) -> None:
        tall, wide = conv.weight.shape[2:]
        (down, along), (above, beside), (apart_down, apart_along) = conv.stride, conv.padding, conv.dilation
        sizes = {0: len(conv.weight), 1: wide, 11: tall, 2: apart_along, 12: apart_down, 3: along, 13: down}
        parameters: dict[int, Value] = {**sizes, 4: beside, 14: above, 5: 1, 6: conv.weight.size}
        if conv.groups > 1:
            parameters[7] = conv.groups
        kind = "Convolution" if conv.groups == 1 else "ConvolutionDepthWise"
        fused = FUSED.get(conv.activation)
        left = "none" if fused else conv.activation
        self._activated(kind, [conv.input], conv.output, left, {**parameters, **(fused or {})})
        self._store_half(conv.weight, conv.output)
        self.weights += conv.bias.tobytes()

    def _lstm(self, lstm: Lstm) -> None:
        both = lstm.directions
        from_input = np.stack([ncnn_gates(d.input_weight) for d in both])
        parameters = {0: lstm.hidden, 1: from_input.size, 2: 2 if len(both) == 2 else 0}
        self._layer("LSTM", [lstm.input], lstm.output, parameters)
        self._store_half(from_input, lstm.output)
        self._store_float(np.stack([ncnn_gates(d.input_bias + d.recurrent_bias) for d in both]))
        self._store_half(np.stack([ncnn_gates(d.recurrent_weight) for d in both]), lstm.output)

    def _log_softmax(self, output: str, logits: str) -> None:
        """x - max, less the logarithm of the sum of its exponentials; ncnn's Softmax gives zeros for small ones."""
        largest, shifted, total = f"{output}.largest", f"{output}.shifted", f"{output}.total"
        self._readers += Counter({logits: 1, shifted: 2})
        self._split(logits)  # written before it was known that it is read twice
        self._reduce(MAX, logits, largest, [CLASSES])
        self._layer("BinaryOp", [logits, largest], shifted, {0: SUBTRACT})
        self._layer("UnaryOp", [shifted], f"{output}.exponentials", {0: EXP})
        self._reduce(SUM, f"{output}.exponentials", total, [CLASSES])
        self._layer("UnaryOp", [total], f"{output}.logarithm", {0: LOG})
        self._layer("BinaryOp", [shifted, f"{output}.logarithm"], output, {0: SUBTRACT})

    def _reduce(self, kind: int, input: str, output: str, axes: Sequence[int], keep: bool = True) -> None:
        # 5: axes are counted as written here, which early releases did not do
        self._layer("Reduction", [input], output, {0: kind, 1: 0, 3: axes, 4: int(keep), 5: 1})

    def _activated(
        self, kind: str, inputs: Sequence[str], output: str, activation: Activation, parameters: Mapping[int, Value]
    ) -> None:
        if activation == "none":
            self._layer(kind, inputs, output, parameters)
            return
        self._layer(kind, inputs, f"{output}.linear", parameters)
        match activation:
            case "relu":
                self._layer("ReLU", [f"{output}.linear"], output)
            case "hardswish":
                self._layer("HardSwish", [f"{output}.linear"], output, {0: 1 / 6, 1: 0.5})
            case "hardsigmoid":
                self._layer("HardSigmoid", [f"{output}.linear"], output, {0: 1 / 6, 1: 0.5})

    def _layer(
        self, kind: str, inputs: Sequence[str], output: str, parameters: Mapping[int, Value] | None = None
    ) -> None:
        taken = [self._copies[value].pop(0) if self._copies[value] else value for value in inputs]
        self._line(kind, output, taken, [output], parameters or {})
        self._split(output)

    def _split(self, value: str) -> None:
        """Copies of a value that several layers read."""
        readers = self._readers[value]
        if readers > 1:
            copies = [f"{value}.copy{i}" for i in range(readers)]
            self._line("Split", f"{value}.copies", [value], copies, {})
            self._copies[value] = list(copies)

    def _line(
        self, kind: str, name: str, inputs: Sequence[str], outputs: Sequence[str], parameters: Mapping[int, Value]
    ) -> None:
        given = [written(number, value) for number, value in parameters.items()]
        fields = [kind, name, str(len(inputs)), str(len(outputs)), *inputs, *outputs, *given]
        self._lines.append((" ".join(fields), len(outputs)))

    def _store_half(self, weight: NDArray[np.float32], name: str) -> None:
        if not np.abs(weight).max() <= np.finfo(np.float16).max:
            raise ValueError(
                f"weights of {name} reach {np.abs(weight).max():g}, which half precision cannot hold, and ncnn files "
                "are written in it; export to onnx instead"
            )
        stored = weight.astype("<f2").tobytes()
        self.weights += np.uint32(HALF_TAG).tobytes() + stored + bytes(-len(stored) % 4)

    def _store_float(self, weight: NDArray[np.float32]) -> None:
        self.weights += np.uint32(FLOAT_TAG).tobytes() + weight.astype("<f4").tobytes()


def inputs_of(operator: Operator) -> list[str]:
    """The values that an operator reads."""
    match operator:
        case Add(left=left, right=right):
            return [left, right]
        case ScaleChannels(input=input, factors=factors):
            return [input, factors]
        case _:
            return [operator.input]


def written(number: int, value: Value) -> str:
    """A layer's parameter; an array has a number of its own and its length first."""
    if isinstance(value, Sequence):
        return f"{-23300 - number}={len(value)}," + ",".join(map(digits, value))
    return f"{number}={digits(value)}"


def digits(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.9e}"


def ncnn_gates(stacked: NDArray[np.float32]) -> NDArray[np.float32]:
    """(4 * hidden, ...) in torch's order of gates -> the same in ncnn's order."""
    gates = np.split(stacked, 4)
    return np.concatenate([gates[i] for i in NCNN_GATES])
