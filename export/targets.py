"""What can be written: every export format, how close it must come to the network, and what writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crnn.checkpoint import ModelInfo
from export.float_onnx import write_float_onnx
from export.operators import Graph

TargetName = Literal["onnx"]


@dataclass(frozen=True)
class Target:
    """One export format.

    suffix: how its files end; crnn.runtimes.open_runtime picks the runtime by the last part.
    tolerance: how much a log-probability may differ from the network's in float32.
    write: writes graph and info to a path, whole or not at all.
    """

    suffix: str
    tolerance: float
    write: Callable[[Graph, ModelInfo, Path], None]


TARGETS: dict[TargetName, Target] = {
    # Float32 sums in another order: 3e-5 was seen on a trained ResNet-101, whose log-probabilities reach -30.
    "onnx": Target(".onnx", 1e-4, write_float_onnx),
}
