"""What can be written: every export format, how close it must come to the network, and what writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from crnn.checkpoint import ModelInfo
from export.calibration import Quantisation
from export.float_onnx import write_float_onnx, write_half_onnx
from export.int8_onnx import write_int8_onnx, write_portable_onnx
from export.mnn_file import write_mnn
from export.ncnn_files import write_ncnn
from export.operators import Graph
from export.parity import Gate
from export.report import Written
from export.tflite_writer import (
    write_calibrated_tflite,
    write_fixed_tflite,
    write_float_tflite,
    write_half_tflite,
    write_int8_tflite,
)

TargetName = Literal[
    "onnx",
    "onnx-fp16",
    "onnx-int8",
    "onnx-int8-portable",
    "tflite",
    "tflite-fp16",
    "tflite-int8",
    "tflite-int8-calibrated",
    "tflite-fixed",
    "ncnn",
    "mnn",
]
NOT_IN_ALL: tuple[TargetName, ...] = ("ncnn", "mnn")
"""Formats whose packages are no dependencies."""


@dataclass(frozen=True)
class Target:
    """One export format.

    suffix: how its files end; crnn.runtimes.open_runtime picks the runtime by the last part.
    gate: what its files must hold.
    write: graph, info, quantisation -> the file's content and a report of its operators.
    int8: operators may have to stay float.
    calibrated: it needs the ranges of activations.
    one_line_at_a_time: its files answer differently in company, or take none.
    fixed_width: its files take pictures of one width.
    """

    suffix: str
    gate: Gate
    write: Callable[[Graph, ModelInfo, Quantisation], Written]
    int8: bool = False
    calibrated: bool = False
    one_line_at_a_time: bool = False
    fixed_width: bool = False


# Float32 sums in another order: 3e-5 is usual; where more is seen, the network's own rounding decides (parity.widened).
FLOAT = Gate(1e-4, "largest", 1.0)
# Weights of 11 bits: 0.03 was seen on a trained ResNet-18.
HALF = Gate(0.2, "largest", 0.98)
# LiteRT adds in yet another order.
FLOAT_TFLITE = Gate(5e-4, "largest", 1.0)
# Weights of 8 bits, mostly activations too: 0.01 to 0.03 was seen, 1 is what an unrelated network gives.
INT8 = Gate(0.1, "relative", 0.95)

TARGETS: dict[TargetName, Target] = {
    "onnx": Target(".onnx", FLOAT, write_float_onnx),
    "onnx-fp16": Target(".fp16.onnx", HALF, write_half_onnx),
    "onnx-int8": Target(".int8.onnx", INT8, write_int8_onnx, int8=True, calibrated=True, one_line_at_a_time=True),
    "onnx-int8-portable": Target(".int8-portable.onnx", INT8, write_portable_onnx, int8=True, calibrated=True),
    "tflite": Target(".tflite", FLOAT_TFLITE, write_float_tflite, one_line_at_a_time=True),
    "tflite-fp16": Target(".fp16.tflite", HALF, write_half_tflite, one_line_at_a_time=True),
    "tflite-int8": Target(".int8.tflite", INT8, write_int8_tflite, int8=True, one_line_at_a_time=True),
    "tflite-int8-calibrated": Target(
        ".int8-calibrated.tflite",
        INT8,
        write_calibrated_tflite,
        int8=True,
        calibrated=True,
        one_line_at_a_time=True,
    ),
    "tflite-fixed": Target(
        ".fixed.tflite", FLOAT_TFLITE, write_fixed_tflite, one_line_at_a_time=True, fixed_width=True
    ),
    "ncnn": Target(".ncnn.zip", HALF, write_ncnn, one_line_at_a_time=True),
    "mnn": Target(".mnn.zip", HALF, write_mnn),
}
