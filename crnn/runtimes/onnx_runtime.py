"""Reads exported ONNX files with onnxruntime; torch is not needed."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from crnn.checkpoint import ModelInfo
from crnn.runtimes import METADATA_KEY, available_cores

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
ERROR = 3  # of onnxruntime's log levels: its warnings are about graphs, not about this use of them


class OnnxRuntime:
    """An exported file as a Runtime.

    threads: of one operation ("intra-op"); operations run one after the other.
    Raises ValueError in one sentence where the file was not written by `crnn export` or is damaged.
    """

    def __init__(self, path: Path, threads: int | None = None, device: str = "cpu") -> None:
        self.path = path
        self.threads = threads or available_cores()
        provider = available_provider(device)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = ERROR
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise ValueError(
                f"{path} is not a whole ONNX model ({first_sentence(error)}); export it again with crnn export"
            ) from error
        if provider not in self._session.get_providers():  # onnxruntime itself would go on with the CPU
            raise ValueError(f"the device {device} could not be used by onnxruntime for {path}; use --device cpu")
        metadata = self._session.get_modelmeta().custom_metadata_map
        if METADATA_KEY not in metadata:
            raise ValueError(
                f"{path} is an ONNX model, but not one of pocket-crnn (no {METADATA_KEY!r} in its metadata); "
                "give a file that crnn export wrote"
            )
        self.info = ModelInfo.from_json(metadata[METADATA_KEY], str(path))
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        classes = outputs[0].shape[-1]
        if len(inputs) != 1 or len(outputs) != 1 or classes != self.info.charset.classes:
            raise ValueError(
                f"{path} has {len(inputs)} inputs, {len(outputs)} outputs and {classes} classes, where its metadata "
                f"describes 1, 1 and {self.info.charset.classes}; export it again with crnn export"
            )
        self._input = inputs[0].name

    @cached_property
    def parameters(self) -> int:
        """Numbers stored in the graph, but for shapes and indices (integers of 64 bits)."""
        import onnx  # only here: reading needs no second parser

        stored = onnx.load(str(self.path)).graph.initializer
        return sum(math.prod(t.dims) for t in stored if t.data_type != onnx.TensorProto.INT64)

    def __call__(self, pictures: NDArray[np.float32], /) -> NDArray[np.float32]:
        if self.info.one_line_at_a_time and len(pictures) > 1:
            return np.concatenate([self(picture[None]) for picture in pictures])
        (log_probs,) = self._session.run(None, {self._input: pictures})
        return np.asarray(log_probs, dtype=np.float32)  # (N, T, K)


def available_provider(device: str) -> str:
    """onnxruntime's name for a device; ValueError where this installation has none."""
    provider = PROVIDERS.get(device)
    if provider is None or provider not in onnxruntime.get_available_providers():
        usable = ", ".join(d for d, p in PROVIDERS.items() if p in onnxruntime.get_available_providers())
        raise ValueError(f"the device {device!r} is not there for ONNX files; this onnxruntime has: {usable}")
    return provider


def first_sentence(error: Exception) -> str:
    """What an error of onnxruntime says, without its prefix and its further lines."""
    return str(error).splitlines()[0].rpartition(" : ")[2][:160] if str(error) else type(error).__name__
