"""MNN, converted from our ONNX file by MNN's own converter, where that package is installed; half precision.

The converter is called as the package's extension module and in a process of its own: it ends the whole process where
it fails, and the command `mnnconvert` around it installs a further package and reports every use to its makers.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from crnn.checkpoint import ModelInfo
from crnn.runtimes.archive import Archive, pack
from crnn.runtimes.mnn_adapter import MODEL
from export.float_onnx import write_float_onnx
from export.operators import Graph
from export.report import Written

if TYPE_CHECKING:
    from export.calibration import Quantisation

CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"


def write_mnn(graph: Graph, info: ModelInfo, quantisation: Quantisation) -> Written:
    """A zip with crnn.mnn and pocket_crnn.json. ValueError where the package is missing or its converter fails."""
    if find_spec("MNN") is None:
        raise ValueError("the format mnn is written by MNN, which is not installed; pip install MNN, or leave it out")
    onnx = write_float_onnx(graph, info, quantisation)
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "crnn.onnx"), Path(folder, MODEL)
        source.write_bytes(onnx.content)
        # without useOriginRNNImpl the converter makes a loop of the LSTM, and crashes
        options = ["-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(made), "--fp16", "--useOriginRNNImpl"]
        done = subprocess.run([sys.executable, "-c", CONVERT, *options], capture_output=True, text=True)
        if done.returncode or not made.is_file():
            said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
            raise ValueError(
                f"MNN's converter failed with {done.returncode} ({said[-1][:160]}); export to onnx instead"
            )
        content = pack(Archive({MODEL: made.read_bytes()}, info, graph.parameters))
    reports = (replace(r, weights="float16", bytes=r.bytes // 2) if r.bytes else r for r in onnx.operators)
    return Written(content, tuple(reports))
