"""From the network to the operators it consists of, BatchNorm folded away.

Modules are read by their exact type, since a subclass may compute something else. What is not known here is
refused by its class and its place in the network, never passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor, nn
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops.misc import Conv2dNormActivation, SqueezeExcitation

from crnn.backbones import Backbone
from crnn.model import Crnn, Encoder, EncoderLayer
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
    Pair,
    ScaleChannels,
    Weights,
)


def read_graph(model: Crnn) -> Graph:
    """The operators of a network in eval mode. ValueError naming the module that cannot be written as one."""
    operators: list[Operator] = []
    value = INPUT
    for name in ("backbone", "encoder", "classifier"):
        value = read(operators, model.get_submodule(name), name, value)
    operators.append(LogSoftmax(OUTPUT, value))
    sizes = model.sizes
    return Graph(tuple(without_dead_rows(operators, sizes.height)), sizes.channels, sizes.height, sizes.classes)


def without_dead_rows(operators: Sequence[Operator], height: int) -> list[Operator]:
    """The operators with those kernel rows cut off that meet nothing but padding; the outputs stay what they were.

    Where a map is one row high, only the middle row of a 3 x 3 kernel ever sees it: of a ResNet-18 that reads lines 32
    pixels high this is two fifths of all weights.
    """
    rows, kept = {INPUT: height}, []
    for operator in operators:
        match operator:
            case Conv():
                rows[operator.output] = rows_out(rows[operator.input], operator)
                operator = cut_rows(operator, rows[operator.input])
            case MaxPool():
                rows[operator.output] = rows_out(rows[operator.input], operator)
            case Add():
                rows[operator.output] = rows[operator.left]
            case ScaleChannels():
                rows[operator.output] = rows[operator.input]
            case GlobalAveragePool():
                rows[operator.output] = 1
        kept.append(operator)
    return kept


def rows_out(rows: int, operator: Conv | MaxPool) -> int:
    """Rows of the map that a convolution or pooling makes of one with so many rows."""
    kernel = operator.weight.shape[2] if isinstance(operator, Conv) else operator.kernel[0]
    reach = (kernel - 1) * (operator.dilation[0] if isinstance(operator, Conv) else 1) + 1
    return (rows + 2 * operator.padding[0] - reach) // operator.stride[0] + 1


def cut_rows(conv: Conv, rows: int) -> Conv:
    """The convolution without kernel rows that meet only padding, if what is left pads both sides alike."""
    (stride, _), (padding, columns), kernel = conv.stride, conv.padding, conv.weight.shape[2]
    tops = range(-padding, stride * rows_out(rows, conv) - padding, stride)  # where the kernel's first row comes to lie
    met = [k for k in range(kernel) if any(0 <= top + k < rows for top in tops)]
    first, last = met[0], met[-1]
    above = padding - first
    below = tops[-1] + last + 1 - rows  # rows that the last one reaches beyond the map
    if conv.dilation[0] != 1 or len(met) == kernel or above < 0 or max(below, 0) != above:
        return conv
    return replace(conv, weight=np.ascontiguousarray(conv.weight[:, :, first : last + 1]), padding=(above, columns))


def read(operators: list[Operator], module: nn.Module, path: str, value: str) -> str:
    """Appends what module does with value and returns the name of its result."""
    reader = READERS.get(type(module))
    if reader is None:
        raise ValueError(
            f"the module {type(module).__name__} at {path} is none that can be exported "
            f"({', '.join(known.__name__ for known in READERS)}); use one of these or teach export/graph.py to read it"
        )
    return reader(operators, module, path, value)


def read_children(operators: list[Operator], module: nn.Module, path: str, value: str, *names: str) -> str:
    """The named children, or all of them, one after the other."""
    for name in names or [name for name, _ in module.named_children()]:
        value = read(operators, module.get_submodule(name), f"{path}.{name}", value)
    return value


def read_backbone(operators: list[Operator], module: nn.Module, path: str, value: str) -> str:
    assert isinstance(module, Backbone)
    value = read_children(operators, module, path, value)  # stages, then the projection where there is one
    operators.append(MeanOverHeight(path, value))
    return path


def read_encoder(operators: list[Operator], module: nn.Module, path: str, value: str) -> str:
    return read_children(operators, module.get_submodule("layers"), f"{path}.layers", value)


def read_basic_block(operators: list[Operator], module: nn.Module, path: str, value: str) -> str:
    out = read_children(operators, module, path, value, "conv1", "bn1", "relu", "conv2", "bn2")
    return _close_residual(operators, module, path, value, out)


def read_bottleneck(operators: list[Operator], module: nn.Module, path: str, value: str) -> str:
    out = read_children(operators, module, path, value, "conv1", "bn1", "relu", "conv2", "bn2", "relu", "conv3", "bn3")
    return _close_residual(operators, module, path, value, out)


def _close_residual(operators: list[Operator], module: nn.Module, path: str, value: str, out: str) -> str:
    shortcut = read_children(operators, module, path, value, "downsample") if module.downsample is not None else value
    operators.append(Add(path, out, shortcut, "none"))
    return read_children(operators, module, path, path, "relu")


def read_inverted_residual(operators: list[Operator], module: nn.Module, path: str, value: str) -> str:
    assert isinstance(module, InvertedResidual)
    out = read_children(operators, module, path, value, "block")
    if not module.use_res_connect:
        return out
    operators.append(Add(path, out, value, "none"))
    return path


def read_squeeze_excitation(operators: list[Operator], module: nn.Module, path: str, value: str) -> str:
    factors = read_children(operators, module, path, value, "avgpool", "fc1", "activation", "fc2", "scale_activation")
    operators.append(ScaleChannels(path, value, factors))
    return path


def read_average_pool(operators: list[Operator], module: nn.Module, path: str, value: str) -> str:
    assert isinstance(module, nn.AdaptiveAvgPool2d)
    if module.output_size not in (1, (1, 1)):
        raise ValueError(f"the pooling at {path} leaves {module.output_size} cells; only one cell can be exported")
    operators.append(GlobalAveragePool(path, value))
    return path


def read_convolution(operators: list[Operator], module: nn.Module, path: str, value: str) -> str:
    assert isinstance(module, nn.Conv2d)
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise ValueError(
            f"the convolution at {path} pads with {module.padding!r} and {module.padding_mode!r}; "
            "only zeros, given as numbers, can be exported"
        )
    bias = np.zeros(module.out_channels, np.float32) if module.bias is None else array(module.bias)
    operators.append(
        Conv(
            output=path,
            input=value,
            weight=array(module.weight),
            bias=bias,
            stride=pair(module.stride),
            padding=pair(module.padding),
            dilation=pair(module.dilation),
            groups=module.groups,
            activation="none",
        )
    )
    return path


def read_batch_norm(operators: list[Operator], module: nn.Module, path: str, value: str) -> str:
    """Folded into the convolution before it: weight * s, (bias - mean) * s + beta with s = gamma / sqrt(var + eps)."""
    assert isinstance(module, nn.BatchNorm2d)
    before = operators[-1] if operators else None
    if not isinstance(before, Conv) or before.output != value or before.activation != "none":
        raise ValueError(f"the BatchNorm2d at {path} follows no convolution, so it cannot be folded; put it behind one")
    if module.running_mean is None or module.running_var is None:
        raise ValueError(f"the BatchNorm2d at {path} keeps no running statistics; train with track_running_stats=True")
    mean, variance = wide(module.running_mean), wide(module.running_var)
    gain = 1 / np.sqrt(variance + module.eps) * (1 if module.weight is None else wide(module.weight))
    shift = 0 if module.bias is None else wide(module.bias)
    weight = before.weight.astype(np.float64) * gain[:, None, None, None]
    bias = (before.bias - mean) * gain + shift
    operators[-1] = replace(before, weight=weight.astype(np.float32), bias=bias.astype(np.float32))
    return value


def read_activation(operators: list[Operator], module: nn.Module, path: str, value: str) -> str:
    """Becomes part of the convolution or sum before it."""
    before = operators[-1] if operators else None
    if not isinstance(before, Conv | Add) or before.output != value or before.activation != "none":
        name = type(module).__name__
        raise ValueError(f"the {name} at {path} follows neither a convolution nor a sum; put it behind one")
    operators[-1] = replace(before, activation=ACTIVATIONS[type(module)])
    return value


def read_max_pool(operators: list[Operator], module: nn.Module, path: str, value: str) -> str:
    assert isinstance(module, nn.MaxPool2d)
    if pair(module.dilation) != (1, 1) or module.ceil_mode or module.return_indices:
        raise ValueError(f"the MaxPool2d at {path} uses dilation, ceil_mode or indices, which cannot be exported")
    operators.append(MaxPool(path, value, pair(module.kernel_size), pair(module.stride), pair(module.padding)))
    return path


def read_lstm(operators: list[Operator], module: nn.Module, path: str, value: str) -> str:
    assert isinstance(module, nn.LSTM)
    if module.num_layers != 1 or module.proj_size or not module.bias or not module.batch_first:
        raise ValueError(
            f"the LSTM at {path} has {module.num_layers} layers, proj_size {module.proj_size}, bias {module.bias}, "
            f"batch_first {module.batch_first}; only single layers, batch first, with bias and without projection, "
            "can be exported"
        )
    directions = tuple(
        LstmDirection(*(array(getattr(module, f"{name}_l0{suffix}")) for name in LSTM_PARAMETERS))
        for suffix in ("", "_reverse")[: 2 if module.bidirectional else 1]
    )
    operators.append(Lstm(path, value, directions))
    return path


def read_linear(operators: list[Operator], module: nn.Module, path: str, value: str) -> str:
    assert isinstance(module, nn.Linear)
    bias = np.zeros(module.out_features, np.float32) if module.bias is None else array(module.bias)
    operators.append(Linear(path, value, array(module.weight), bias))
    return path


LSTM_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
"""In the order of LstmDirection's fields."""

ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: "relu",
    nn.Hardswish: "hardswish",
    nn.Hardsigmoid: "hardsigmoid",
}

READERS: dict[type[nn.Module], Callable[[list[Operator], nn.Module, str, str], str]] = {
    Backbone: read_backbone,
    Encoder: read_encoder,
    EncoderLayer: read_children,
    BasicBlock: read_basic_block,
    Bottleneck: read_bottleneck,
    InvertedResidual: read_inverted_residual,
    SqueezeExcitation: read_squeeze_excitation,
    Conv2dNormActivation: read_children,
    nn.Sequential: read_children,
    nn.Conv2d: read_convolution,
    nn.BatchNorm2d: read_batch_norm,
    nn.ReLU: read_activation,
    nn.Hardswish: read_activation,
    nn.Hardsigmoid: read_activation,
    nn.MaxPool2d: read_max_pool,
    nn.AdaptiveAvgPool2d: read_average_pool,
    nn.LSTM: read_lstm,
    nn.Linear: read_linear,
}


def array(tensor: Tensor) -> Weights:
    found: Weights = tensor.detach().float().cpu().numpy().copy()
    return found


def wide(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return array(tensor).astype(np.float64)


def pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
