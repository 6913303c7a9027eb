"""ONNX in float32, built node by node: batch and width stay free, and no node computes a shape.

Neither of torch's exporters gives a graph as small (56 nodes for a ResNet-18 with two BiLSTM layers), and one of
them fixes the number of columns. The opset and IR version are old enough for runtimes of early 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from crnn.checkpoint import ModelInfo, write_atomically
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

OPSET = 18
IR_VERSION = 8

ONNX_GATES = (0, 3, 1, 2)
"""Where ONNX's gates (input, output, forget, cell) stand among torch's (input, forget, cell, output)."""


def write_float_onnx(graph: Graph, info: ModelInfo, path: Path) -> None:
    """Writes the file: it is whole or not there."""
    content = build(graph, info).SerializeToString()
    write_atomically(path, lambda file: file.write(content))


def build(graph: Graph, info: ModelInfo) -> onnx.ModelProto:
    """The graph as an ONNX model: pictures (N, C, height, W) -> log_probs (N, T, K), with info as metadata."""
    nodes = _Nodes(graph.operators)
    for operator in graph.operators:
        nodes.write(operator)
    model = helper.make_model(
        helper.make_graph(
            nodes.made,
            "crnn",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", graph.channels, graph.height, "W"])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", "T", graph.classes])],
            nodes.constants,
        ),
        producer_name="pocket-crnn",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, metadata(info))
    onnx.checker.check_model(model)
    return model


def metadata(info: ModelInfo) -> dict[str, str]:
    """What travels in the file: everything under `pocket_crnn`, and the characters as other readers look for them.

    `character` holds one character a line without the space, which such readers append as the last class.
    """
    return {"pocket_crnn": info.to_json(), "character": "\n".join(info.charset.characters.replace(" ", ""))}


class _Nodes:
    """ONNX nodes and constants, written operator by operator.

    Between the first and the last LSTM sequences are (T, N, features), as ONNX wants them; the last one hands on
    (N, T, features), so that no transposition is left over.
    """

    def __init__(self, operators: Sequence[Operator]) -> None:
        self.made: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        lstms = [operator for operator in operators if isinstance(operator, Lstm)]
        self._last_lstm = lstms[-1] if lstms else None

    def write(self, operator: Operator) -> None:
        match operator:
            case Conv():
                self._conv(operator)
            case MaxPool(output, input, kernel, stride, padding):
                self._node("MaxPool", [input], output, kernel_shape=kernel, strides=stride, pads=padding * 2)
            case Add(output, left, right, activation):
                self._activated("Add", [left, right], output, activation)
            case GlobalAveragePool(output, input):
                self._node("GlobalAveragePool", [input], output)
            case ScaleChannels(output, input, factors):
                self._node("Mul", [input, factors], output)
            case MeanOverHeight(output, input):
                axes = self._constant(f"{output}.axes", np.array([2]))
                mean = self._node("ReduceMean", [input, axes], f"{output}.mean", keepdims=0)  # (N, D, T)
                order = (2, 0, 1) if self._last_lstm else (0, 2, 1)
                self._node("Transpose", [mean], output, perm=order)
            case Lstm():
                self._lstm(operator)
            case Linear(output, input, weight, bias):
                factors, shift = self._constant(f"{output}.weight", weight.T), self._constant(f"{output}.bias", bias)
                product = self._node("MatMul", [input, factors], f"{output}.product")
                self._node("Add", [product, shift], output)
            case LogSoftmax(output, input):
                self._node("LogSoftmax", [input], output, axis=-1)

    def _conv(self, conv: Conv) -> None:
        inputs = [
            conv.input,
            self._constant(f"{conv.output}.weight", conv.weight),
            self._constant(f"{conv.output}.bias", conv.bias),
        ]
        attributes = {
            "kernel_shape": conv.weight.shape[2:],
            "strides": conv.stride,
            "pads": conv.padding * 2,  # top, left, bottom, right
            "dilations": conv.dilation,
            "group": conv.groups,
        }
        self._activated("Conv", inputs, conv.output, conv.activation, **attributes)

    def _lstm(self, lstm: Lstm) -> None:
        name, both = lstm.output, lstm.directions
        inputs = [
            lstm.input,  # (T, N, in)
            self._constant(f"{name}.W", np.stack([onnx_gates(d.input_weight) for d in both])),
            self._constant(f"{name}.R", np.stack([onnx_gates(d.recurrent_weight) for d in both])),
            self._constant(f"{name}.B", np.stack([lstm_bias(d) for d in both])),
        ]
        direction = "bidirectional" if len(both) == 2 else "forward"
        made = self._node("LSTM", inputs, f"{name}.Y", hidden_size=lstm.hidden, direction=direction)
        order = (2, 0, 1, 3) if lstm is self._last_lstm else (0, 2, 1, 3)  # from (T, directions, N, hidden)
        apart = self._node("Transpose", [made], f"{name}.apart", perm=order)
        # 0 keeps an axis as it is, so the constant carries neither batch nor columns
        joined = self._constant(f"{name}.shape", np.array([0, 0, len(both) * lstm.hidden]))
        self._node("Reshape", [apart, joined], name)

    def _activated(self, kind: str, inputs: list[str], output: str, activation: Activation, **attributes: Any) -> None:
        if activation == "none":
            self._node(kind, inputs, output, **attributes)
            return
        linear = self._node(kind, inputs, f"{output}.linear", **attributes)
        match activation:
            case "relu":
                self._node("Relu", [linear], output)
            case "hardswish":
                self._node("HardSwish", [linear], output)
            case "hardsigmoid":
                self._node("HardSigmoid", [linear], output, alpha=1 / 6, beta=0.5)

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.made.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


def onnx_gates(stacked: NDArray[np.float32]) -> NDArray[np.float32]:
    """(4 * hidden, ...) in torch's order of gates -> the same in ONNX's order."""
    gates = np.split(stacked, 4)
    return np.concatenate([gates[i] for i in ONNX_GATES])


def lstm_bias(direction: LstmDirection) -> NDArray[np.float32]:
    """(8 * hidden,): the input's bias, then the recurrent one."""
    return np.concatenate([onnx_gates(direction.input_bias), onnx_gates(direction.recurrent_bias)])
