"""ONNX in float32, or with weights stored in half precision, built node by node.

Batch and width stay free, and no node computes a shape. Neither of torch's exporters gives a graph as small (56 nodes
for a ResNet-18 with two BiLSTM layers), and one of them fixes the number of columns. The opset and IR version are old
enough for runtimes of early 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from crnn.checkpoint import ModelInfo
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
    LstmDirection,
    MaxPool,
    MeanOverHeight,
    Operator,
    ScaleChannels,
)
from export.report import OperatorReport, Written

if TYPE_CHECKING:
    from export.calibration import Quantisation  # which reads the float32 graph to find ranges

OPSET = 18
IR_VERSION = 8
MICROSOFT = "com.microsoft"
"""Domain of onnxruntime's own operators."""

ONNX_GATES = (0, 3, 1, 2)
"""Where ONNX's gates (input, output, forget, cell) stand among torch's (input, forget, cell, output)."""


def write_float_onnx(graph: Graph, info: ModelInfo, quantisation: Quantisation) -> Written:
    """Everything in float32."""
    return finish(OnnxNodes(graph.operators), graph, info)


def write_half_onnx(graph: Graph, info: ModelInfo, quantisation: Quantisation) -> Written:
    """Weights in float16 behind a Cast, which runtimes undo once, at loading: half the bytes, the speed of float32."""
    return finish(HalfOnnxNodes(graph.operators), graph, info)


def float_model(graph: Graph, outputs: Sequence[str]) -> onnx.ModelProto:
    """The float32 graph without metadata that gives the values named, of any shapes, instead of log-probabilities."""
    nodes = OnnxNodes(graph.operators)
    for operator in graph.operators:
        nodes.write(operator)
    return model_of(nodes, graph, [helper.make_empty_tensor_value_info(name) for name in outputs])


def finish(nodes: OnnxNodes, graph: Graph, info: ModelInfo) -> Written:
    """The graph as an ONNX file: pictures (N, C, height, W) -> log_probs (N, T, K), with info as metadata."""
    for operator in graph.operators:
        nodes.write(operator)
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", "T", graph.classes])
    model = model_of(nodes, graph, [output])
    helper.set_model_props(model, metadata(info))
    onnx.checker.check_model(model)
    return Written(model.SerializeToString(), tuple(nodes.reports))


def model_of(nodes: OnnxNodes, graph: Graph, outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
    pictures = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", graph.channels, graph.height, "W"])
    opsets = [helper.make_opsetid("", OPSET)]
    if any(node.domain == MICROSOFT for node in nodes.made):
        opsets.append(helper.make_opsetid(MICROSOFT, 1))
    return helper.make_model(
        helper.make_graph(nodes.made, "crnn", [pictures], outputs, nodes.constants),
        producer_name="pocket-crnn",
        opset_imports=opsets,
        ir_version=IR_VERSION,
    )


def metadata(info: ModelInfo) -> dict[str, str]:
    """What travels in the file: everything under `pocket_crnn`, and the characters as other readers look for them.

    `character` holds one character a line without the space, which such readers append as the last class.
    """
    return {"pocket_crnn": info.to_json(), "character": "\n".join(info.charset.characters.replace(" ", ""))}


Storage = tuple[str, str, str]
"""Of an operator: type of its weights, what it computes with, why something of it stayed float."""

FLOAT: Storage = ("float32", "float32", "")
NO_WEIGHTS: Storage = ("none", "float32", "")


class OnnxNodes:
    """ONNX nodes and constants, written operator by operator, all in float32; subclasses store and compute otherwise.

    Between the first and the last LSTM sequences are (T, N, features), as ONNX wants them; the last one hands on
    (N, T, features), so that no transposition is left over.
    """

    def __init__(self, operators: Sequence[Operator]) -> None:
        self.made: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.reports: list[OperatorReport] = []
        lstms = [operator for operator in operators if isinstance(operator, Lstm)]
        self._last_lstm = lstms[-1] if lstms else None

    def write(self, operator: Operator) -> None:
        before = len(self.constants)
        weights, activations, reason = self._write(operator)
        stored = sum(len(constant.raw_data) for constant in self.constants[before:])
        kind = type(operator).__name__
        self.reports.append(OperatorReport(operator.output, kind, weights, activations, stored, reason))

    def _write(self, operator: Operator) -> Storage:
        match operator:
            case Conv():
                return self._conv(operator)
            case MaxPool():
                return self._max_pool(operator)
            case Add():
                return self._add(operator)
            case GlobalAveragePool():
                return self._average_pool(operator)
            case ScaleChannels():
                return self._scale_channels(operator)
            case MeanOverHeight(output, input):
                axes = self._constant(f"{output}.axes", np.array([2]))
                mean = self._node("ReduceMean", [self._read(input), axes], f"{output}.mean", keepdims=0)  # (N, D, T)
                order = (2, 0, 1) if self._last_lstm else (0, 2, 1)
                self._node("Transpose", [mean], output, perm=order)
                return NO_WEIGHTS
            case Lstm():
                return self._lstm(operator)
            case Linear():
                return self._linear(operator)
            case LogSoftmax(output, input):
                self._node("LogSoftmax", [input], output, axis=-1)
                return NO_WEIGHTS

    def _read(self, value: str) -> str:
        """The name under which a consumer in float reads a value of the trunk."""
        return value

    def _max_pool(self, pool: MaxPool) -> Storage:
        sizes = {"kernel_shape": pool.kernel, "strides": pool.stride, "pads": pool.padding * 2}
        self._node("MaxPool", [self._read(pool.input)], pool.output, **sizes)
        return NO_WEIGHTS

    def _add(self, add: Add) -> Storage:
        self._activated("Add", [self._read(add.left), self._read(add.right)], add.output, add.activation)
        return NO_WEIGHTS

    def _average_pool(self, pool: GlobalAveragePool) -> Storage:
        self._node("GlobalAveragePool", [self._read(pool.input)], pool.output)
        return NO_WEIGHTS

    def _scale_channels(self, scaled: ScaleChannels) -> Storage:
        self._node("Mul", [self._read(scaled.input), self._read(scaled.factors)], scaled.output)
        return NO_WEIGHTS

    def _conv(self, conv: Conv) -> Storage:
        weight = self._weight(f"{conv.output}.weight", conv.weight)
        bias = self._constant(f"{conv.output}.bias", conv.bias)
        self._convolve(conv, [self._read(conv.input), weight, bias])
        return FLOAT

    def _convolve(self, conv: Conv, inputs: list[str]) -> None:
        attributes = {
            "kernel_shape": conv.weight.shape[2:],
            "strides": conv.stride,
            "pads": conv.padding * 2,  # top, left, bottom, right
            "dilations": conv.dilation,
            "group": conv.groups,
        }
        self._activated("Conv", inputs, conv.output, conv.activation, **attributes)

    def _lstm(self, lstm: Lstm) -> Storage:
        name, both = lstm.output, lstm.directions
        self._recur(
            lstm,
            "LSTM",
            [
                lstm.input,  # (T, N, in)
                self._weight(f"{name}.W", np.stack([onnx_gates(d.input_weight) for d in both]), axis=1),
                self._weight(f"{name}.R", np.stack([onnx_gates(d.recurrent_weight) for d in both]), axis=1),
                self._constant(f"{name}.B", np.stack([lstm_bias(d) for d in both])),
            ],
        )
        return FLOAT

    def _recur(self, lstm: Lstm, kind: str, inputs: list[str], **attributes: Any) -> None:
        """The recurrent node, and its directions side by side."""
        name, both = lstm.output, lstm.directions
        attributes |= {"hidden_size": lstm.hidden, "direction": "bidirectional" if len(both) == 2 else "forward"}
        made = self._node(kind, inputs, f"{name}.Y", **attributes)
        order = (2, 0, 1, 3) if lstm is self._last_lstm else (0, 2, 1, 3)  # from (T, directions, N, hidden)
        apart = self._node("Transpose", [made], f"{name}.apart", perm=order)
        # 0 keeps an axis as it is, so the constant carries neither batch nor columns
        joined = self._constant(f"{name}.shape", np.array([0, 0, len(both) * lstm.hidden]))
        self._node("Reshape", [apart, joined], name)

    def _linear(self, linear: Linear) -> Storage:
        factors = self._weight(f"{linear.output}.weight", linear.weight.T, axis=1)
        shift = self._constant(f"{linear.output}.bias", linear.bias)
        product = self._node("MatMul", [linear.input, factors], f"{linear.output}.product")
        self._node("Add", [product, shift], linear.output)
        return FLOAT

    def _activated(self, kind: str, inputs: list[str], output: str, activation: Activation, **attributes: Any) -> None:
        linear = output if activation == "none" else f"{output}.linear"
        self._node(kind, inputs, linear, **attributes)
        self._activate(linear, output, activation)

    def _activate(self, linear: str, output: str, activation: Activation) -> None:
        match activation:
            case "relu":
                self._node("Relu", [linear], output)
            case "hardswish":
                self._node("HardSwish", [linear], output)
            case "hardsigmoid":
                self._node("HardSigmoid", [linear], output, alpha=1 / 6, beta=0.5)

    def _weight(self, name: str, value: NDArray[np.float32], axis: int = 0) -> str:
        """A weight as it is stored; axis: of its output channels. Returns the name of its float32 values."""
        return self._constant(name, value)

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.made.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


class HalfOnnxNodes(OnnxNodes):
    """Weights in half precision."""

    def _weight(self, name: str, value: NDArray[np.float32], axis: int = 0) -> str:
        stored = self._constant(f"{name}.half", value.astype(np.float16))
        return self._node("Cast", [stored], name, to=TensorProto.FLOAT)

    def _write(self, operator: Operator) -> Storage:
        storage = super()._write(operator)
        return ("float16", "float32", "") if storage == FLOAT else storage


def onnx_gates(stacked: NDArray[np.float32]) -> NDArray[np.float32]:
    """(4 * hidden, ...) in torch's order of gates -> the same in ONNX's order."""
    gates = np.split(stacked, 4)
    return np.concatenate([gates[i] for i in ONNX_GATES])


def lstm_bias(direction: LstmDirection) -> NDArray[np.float32]:
    """(8 * hidden,): the input's bias, then the recurrent one."""
    return np.concatenate([onnx_gates(direction.input_bias), onnx_gates(direction.recurrent_bias)])
