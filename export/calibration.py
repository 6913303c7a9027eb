"""The ranges of activations, seen while the network reads calibration lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from crnn.quantisation import Range
from export.float_onnx import float_model
from export.operators import INPUT, Add, Conv, GlobalAveragePool, Graph, MaxPool, ScaleChannels


@dataclass(frozen=True)
class Quantisation:
    """What a writer of int8 needs beside the graph.

    ranges: of every value of gridded_values; empty for formats that need none.
    keep_float: operators, by the name of their output, whose weights and activations stay float.
    """

    ranges: Mapping[str, Range] = field(default_factory=dict)
    keep_float: frozenset[str] = frozenset()


def gridded_values(graph: Graph) -> list[str]:
    """Values of the trunk that lie on a grid of their own where activations are int8, in the order of their making.

    A hard-swish or hard-sigmoid is computed in float between two grids; what comes before it is NAME.linear. ReLU costs
    none, being part of the grid after it; max-pooling keeps the grid of its input.
    """
    values = [INPUT]
    for operator in graph.operators:
        match operator:
            case Conv(output=output, activation=activation) | Add(output=output, activation=activation):
                if activation in ("hardswish", "hardsigmoid"):
                    values.append(f"{output}.linear")
                values.append(output)
            case GlobalAveragePool(output=output) | ScaleChannels(output=output):
                values.append(output)
    return values


def calibrate(graph: Graph, pictures: Iterable[NDArray[np.float32]]) -> dict[str, Range]:
    """The least and the largest that every gridded value takes while the pictures are read.

    pictures: each (1, C, H, W), of any widths. ValueError where there is none.
    """
    values = gridded_values(graph)
    model = float_model(graph, outputs=values[1:])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ranges: dict[str, Range] = {}
    for picture in pictures:
        seen = [picture, *session.run(values[1:], {INPUT: picture})]
        for name, value in zip(values, seen, strict=True):
            found = Range.of(value)
            ranges[name] = ranges[name] | found if name in ranges else found
    if not ranges:
        raise ValueError("calibration needs lines and there is none; give --data with pictures that decode")
    return with_pooled(graph, ranges)


def with_pooled(graph: Graph, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The ranges, and those of max-pooled values, which are their inputs'."""
    pooled = {o.output: ranges[o.input] for o in graph.operators if isinstance(o, MaxPool)}
    return {**ranges, **pooled}
