"""Reads exported ncnn files with ncnn, where that package is installed; torch is not needed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn.runtimes.archive import unpack

PARAM, BIN = "crnn.param", "crnn.bin"
"""Files of the archive: ncnn's list of layers, and the weights."""


class NcnnRuntime:
    """An exported file as a Runtime; pictures are read one after the other, for ncnn knows no batch.

    Computes in float32, whatever the processor offers. Raises ValueError in one sentence where the package is not
    installed, or the file was not written by `crnn export` or is damaged.
    """

    def __init__(self, path: Path, threads: int | None = None, device: str = "cpu") -> None:
        try:
            import ncnn
        except ModuleNotFoundError as error:
            raise ValueError(f"{path} is read with ncnn, which is not installed; pip install ncnn") from error
        if device != "cpu":
            raise ValueError(f"the device {device!r} is not there for ncnn files; use --device cpu")
        archive = unpack(path, (PARAM, BIN))
        self.path, self.info, self.parameters = path, archive.info, archive.parameters
        self.threads = threads or 1  # threads wait by spinning: on a busy machine two take minutes for a line
        self._ncnn, self._net = ncnn, ncnn.Net()
        options = self._net.opt
        options.num_threads = self.threads
        options.use_vulkan_compute = False
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        options.use_bf16_packed = options.use_bf16_storage = False
        with tempfile.TemporaryDirectory() as folder:
            for name, content in archive.files.items():
                Path(folder, name).write_bytes(content)
            if self._net.load_param(str(Path(folder, PARAM))) or self._net.load_model(str(Path(folder, BIN))):
                raise ValueError(f"{path} holds layers that this ncnn cannot load; upgrade ncnn or export it again")
        inputs, outputs = self._net.input_names(), self._net.output_names()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(
                f"{path} has {len(inputs)} inputs and {len(outputs)} outputs, where a recogniser has one of each; "
                "export it again with crnn export"
            )
        self._input, self._output = inputs[0], outputs[0]

    def __call__(self, pictures: NDArray[np.float32], /) -> NDArray[np.float32]:
        return np.stack([self._read(picture) for picture in pictures])  # (N, T, K)

    def _read(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C, H, W) -> (T, K)."""
        contiguous = np.ascontiguousarray(picture)  # named, for a Mat does not keep what it looks at alive
        extractor = self._net.create_extractor()
        # cloned, for ncnn wants every channel to start at a multiple of 16 bytes
        extractor.input(self._input, self._ncnn.Mat(contiguous).clone())
        failed, log_probs = extractor.extract(self._output)
        if failed:
            raise ValueError(f"{self.path} cannot read a picture of shape {picture.shape} (ncnn says {failed})")
        return np.array(log_probs, np.float32)  # copied, for the extractor's memory goes with it
