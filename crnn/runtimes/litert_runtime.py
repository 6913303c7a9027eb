"""Reads exported TFLite files with LiteRT; neither torch nor TensorFlow is needed."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.environment import Environment
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.options import CpuOptions, Options
from numpy.typing import NDArray

from crnn.checkpoint import ModelInfo
from crnn.runtimes import METADATA_KEY, available_cores

COMPILED = "tflite-fixed"
"""The export format that is written for LiteRT's CompiledModel; the others are for its Interpreter."""

FLOATS = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16)


class LiteRtRuntime:
    """An exported file as a Runtime. Lines are read one by one, since the files take no others.

    Not for several threads of the caller at once.
    Raises ValueError in one sentence where the file was not written by `crnn export` or is damaged.
    """

    def __init__(self, path: Path, threads: int | None = None, device: str = "cpu") -> None:
        self.path = path
        self.threads = threads or available_cores()
        if device != "cpu":
            raise ValueError(f"the device {device!r} is not there for TFLite files; this LiteRT has: cpu")
        try:
            with silence():
                interpreter = Interpreter(model_path=str(path), num_threads=self.threads)  # checks that it is whole
        except ValueError as error:
            raise ValueError(f"{path} is not a whole TFLite model; export it again with crnn export") from error
        self.info = ModelInfo.from_json(stored_info(path), str(path))
        with silence():
            self._model = _Compiled(path, self.threads) if self.info.target == COMPILED else _Interpreted(interpreter)
        classes = self._model.classes
        if classes != self.info.charset.classes:
            raise ValueError(
                f"{path} has {classes} classes, where its metadata describes {self.info.charset.classes}; export it "
                "again with crnn export"
            )

    @cached_property
    def parameters(self) -> int:
        """Numbers stored in the file, but for shapes and axes (integers of 32 bits without a scale)."""
        model = schema.Model.GetRootAs(self.path.read_bytes())
        graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
        tensors = [graph.Tensors(i) for graph in graphs for i in range(graph.TensorsLength())]
        stored = [t for t in tensors if not model.Buffers(t.Buffer()).DataIsNone()]
        weights = [t for t in stored if t.Type() in FLOATS or t.Quantization() is not None]
        return sum(math.prod(t.ShapeAsNumpy().tolist()) for t in weights)

    def __call__(self, pictures: NDArray[np.float32], /) -> NDArray[np.float32]:
        lines = np.ascontiguousarray(pictures.transpose(0, 2, 3, 1))  # channels last
        return np.concatenate([self._model(lines[i : i + 1]) for i in range(len(lines))])  # (N, T, K)


class _Interpreted:
    """Lines (1, H, W, C) -> (1, T, K), of any width."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        interpreter.allocate_tensors()
        (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
        self._input, self._output = taken["index"], given["index"]
        self._width = int(taken["shape"][2])
        self.classes = int(given["shape"][-1])

    def __call__(self, line: NDArray[np.float32]) -> NDArray[np.float32]:
        if line.shape[2] != self._width:
            self._interpreter.resize_tensor_input(self._input, line.shape)
            self._interpreter.allocate_tensors()
            self._width = line.shape[2]
        self._interpreter.set_tensor(self._input, line)
        self._interpreter.invoke()
        log_probs: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return log_probs


class _Compiled:
    """Lines (1, H, W, C) -> (1, T, K), of the one width the file was written for."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        options = Options(cpu_options=CpuOptions(num_threads=threads))
        self._model = CompiledModel.from_file(str(path), environment=environment(), options=options)
        (signature,) = self._model.get_signature_list()
        (taken,) = self._model.get_input_tensor_details(signature).values()
        (given,) = self._model.get_output_tensor_details(signature).values()
        self._inputs, self._outputs = self._model.create_input_buffers(0), self._model.create_output_buffers(0)
        self._taken, self._given = tuple(taken["shape"]), tuple(given["shape"])
        self.classes = int(self._given[-1])
        self._inputs[0].write(np.zeros(self._taken, np.float32))  # the first time is loud

    def __call__(self, line: NDArray[np.float32]) -> NDArray[np.float32]:
        if line.shape != self._taken:
            raise ValueError(
                f"{self._path} takes pictures of {self._taken[1:]} (height, width, channels) only and got one of "
                f"{line.shape[1:]}; prepare pictures by its input spec"
            )
        self._inputs[0].write(line)
        self._model.run_by_index(0, self._inputs, self._outputs)
        log_probs: NDArray[np.float32] = self._outputs[0].read(math.prod(self._given), np.float32)
        return log_probs.reshape(self._given)


def stored_info(path: Path) -> str:
    """The JSON in the metadata of a TFLite file; ValueError where it holds none of ours."""
    model = schema.Model.GetRootAs(path.read_bytes())
    for entry in (model.Metadata(i) for i in range(model.MetadataLength())):
        if entry.Name() == METADATA_KEY.encode():
            return bytes(model.Buffers(entry.Buffer()).DataAsNumpy()).decode()
    raise ValueError(
        f"{path} is a TFLite model, but not one of pocket-crnn (no {METADATA_KEY!r} in its metadata); give a file that "
        "crnn export wrote"
    )


@cache
def environment() -> Any:
    """LiteRT's environment, one for the process: it tells of every one that is made or dropped, at the very end too."""
    atexit.register(close_standard_error)
    return Environment.create()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """What LiteRT writes to the process's standard error goes nowhere: it tells of delegates, errors it raises."""
    kept = os.dup(2)
    close_standard_error()
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def close_standard_error() -> None:
    """Nothing is seen of what native code writes there from now on."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
