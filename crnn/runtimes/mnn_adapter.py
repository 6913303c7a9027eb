"""Reads exported MNN files with MNN, where that package is installed; torch is not needed."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.runtimes import available_cores
from crnn.runtimes.archive import unpack

MODEL = "crnn.mnn"
"""File of the archive."""


class MnnRuntime:
    """An exported file as a Runtime. Computes in float32, whatever the processor offers.

    Raises ValueError in one sentence where the package is not installed, or the file was not written by `crnn export`
    or is damaged.
    """

    def __init__(self, path: Path, threads: int | None = None, device: str = "cpu") -> None:
        if device != "cpu":
            raise ValueError(f"the device {device!r} is not there for MNN files; use --device cpu")
        archive = unpack(path, (MODEL,))
        self.path, self.info, self.parameters = path, archive.info, archive.parameters
        self.threads = threads or available_cores()
        with tempfile.TemporaryDirectory() as folder, _silent_stdout():
            try:
                import MNN
            except ModuleNotFoundError as error:
                raise ValueError(f"{path} is read with MNN, which is not installed; pip install MNN") from error
            file = Path(folder, MODEL)
            file.write_bytes(archive.files[MODEL])
            try:
                self._network = MNN.Interpreter(str(file))
                self._session = self._network.createSession(
                    {"backend": "CPU", "numThread": self.threads, "precision": "high"}
                )
            except Exception as error:  # MNN raises nothing more special
                raise ValueError(f"{path} holds no whole MNN model; export it again with crnn export") from error
        self._mnn = MNN
        self._input = self._network.getSessionInput(self._session)

    def __call__(self, pictures: NDArray[np.float32], /) -> NDArray[np.float32]:
        contiguous = np.ascontiguousarray(pictures)
        if tuple(self._input.getShape()) != pictures.shape:
            self._network.resizeTensor(self._input, pictures.shape)
            self._network.resizeSession(self._session)
        self._input.copyFrom(self._tensor(contiguous))
        self._network.runSession(self._session)
        output = self._network.getSessionOutput(self._session)
        log_probs = np.empty(output.getShape(), np.float32)  # (N, T, K)
        host = self._tensor(log_probs)
        output.copyToHostTensor(host)
        return np.array(host.getNumpyData(), np.float32).reshape(log_probs.shape)

    def _tensor(self, array: NDArray[np.float32]) -> Any:
        """A tensor on a contiguous array, which the caller keeps alive."""
        layout = self._mnn.Tensor_DimensionType_Caffe  # as the array lies
        return self._mnn.Tensor(array.shape, self._mnn.Halide_Type_Float, array, layout)


@contextmanager
def _silent_stdout() -> Iterator[None]:
    """MNN greets on file descriptor 1, where commands print what they read."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)
