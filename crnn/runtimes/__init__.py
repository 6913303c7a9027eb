"""Runtimes: array in, array out, one for each kind of model file; none stands in for another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crnn.checkpoint import ModelInfo

METADATA_KEY = "pocket_crnn"
"""Under which an exported file holds its ModelInfo, whatever its format."""


class Runtime(Protocol):
    """A model file made ready to run."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def path(self) -> Path: ...

    @property
    def threads(self) -> int:
        """Threads that share one operation."""
        ...

    @property
    def parameters(self) -> int:
        """How many numbers the model has learned or, in an exported file, stores."""
        ...

    def __call__(self, pictures: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Pictures (N, C, H, W), scaled as the input spec says -> log-probabilities (N, T, K)."""
        ...


def open_runtime(path: Path, threads: int | None = None, device: str = "cpu") -> Runtime:
    """The runtime of a model file, told by its suffix: .pt (a checkpoint), .onnx or .tflite.

    threads: None leaves the choice to the runtime: every core in most. device: "cpu", or an accelerator it has.
    Raises FileNotFoundError or ValueError in one sentence where the file is missing or not a pocket-crnn model,
    or where the device is not there.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; give at least 1, or leave it out to use every core")
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no model file {path}; give a checkpoint (.pt) or an exported file (.onnx, .tflite)"
        )
    match path.suffix.lower():
        case ".pt":
            from crnn.runtimes.torch_runtime import open_torch

            return open_torch(path, threads, device)
        case ".onnx":
            from crnn.runtimes.onnx_runtime import OnnxRuntime

            return OnnxRuntime(path, threads, device)
        case ".tflite":
            from crnn.runtimes.litert_runtime import LiteRtRuntime

            return LiteRtRuntime(path, threads, device)
        case ".zip" if path.name.lower().endswith(".ncnn.zip"):
            from crnn.runtimes.ncnn_adapter import NcnnRuntime

            return NcnnRuntime(path, threads, device)
        case ".zip" if path.name.lower().endswith(".mnn.zip"):
            from crnn.runtimes.mnn_adapter import MnnRuntime

            return MnnRuntime(path, threads, device)
    raise ValueError(
        f"{path} ends in {path.suffix or 'nothing'!r}, which no runtime reads; known are .pt, .onnx, .tflite, "
        ".ncnn.zip and .mnn.zip"
    )


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
