"""How MNN files are made (that they read as the network does: test_export_mnn_and_ncnn.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from crnn.checkpoint import load_checkpoint
from crnn.model import Crnn
from crnn.runtimes.archive import pack, unpack
from crnn.runtimes.mnn_adapter import MODEL, MnnRuntime
from export.calibration import Quantisation
from export.graph import read_graph
from export.mnn_file import write_mnn
from export.report import Written

pytest.importorskip("MNN", reason="the package MNN is not installed here")

Export = Callable[..., tuple[Path, Path, Written]]


@pytest.fixture
def exported(random_checkpoint: Callable[..., Path], tmp_path: Path) -> Export:
    """A function: sizes -> checkpoint, MNN file, what was written."""

    def make(backbone: str = "resnet18", **sizes: object) -> tuple[Path, Path, Written]:
        checkpoint = load_checkpoint(path := random_checkpoint(backbone, **sizes))
        written = write_mnn(read_graph(Crnn.from_checkpoint(checkpoint)), checkpoint.info, Quantisation())
        out = tmp_path / f"{backbone}.mnn.zip"
        out.write_bytes(written.content)
        return path, out, written

    return make


def test_conversion_neither_installs_nor_reports_anything(
    exported: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command mnnconvert calls pip as soon as it starts."""
    called = tmp_path / "called"
    pip = tmp_path / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text(f"#!/bin/sh\ntouch {called}\n")
    pip.chmod(0o755)
    monkeypatch.setenv("PATH", f"{pip.parent}:{os.environ['PATH']}")
    exported()
    assert not called.exists()


def test_nothing_but_our_own_output_reaches_stdout(exported: Export, repository: Path) -> None:
    read = (
        "import sys, numpy\nfrom pathlib import Path\nfrom crnn.runtimes.mnn_adapter import MnnRuntime\n"
        "print(MnnRuntime(Path(sys.argv[1]), 1)(numpy.zeros((1, 3, 32, 64), numpy.float32)).shape)"
    )
    command = [sys.executable, "-c", read, str(exported()[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=repository)
    assert done.stdout == "(1, 16, 96)\n"


def test_a_failing_converter_is_reported_in_one_sentence(
    random_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(random_checkpoint())
    graph = read_graph(Crnn.from_checkpoint(checkpoint))
    monkeypatch.setattr("export.mnn_file.CONVERT", "import sys; sys.exit('no such operator')")
    with pytest.raises(ValueError, match=r"MNN's converter failed with 1 \(no such operator\); export to onnx instead"):
        write_mnn(graph, checkpoint.info, Quantisation())


def test_without_the_package_the_writer_says_what_to_install(
    random_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(random_checkpoint())
    graph = read_graph(Crnn.from_checkpoint(checkpoint))
    monkeypatch.setattr("export.mnn_file.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"the format mnn is written by MNN, .*; pip install MNN"):
        write_mnn(graph, checkpoint.info, Quantisation())


def test_an_archive_without_a_whole_model_is_refused(exported: Export) -> None:
    out = exported()[1]
    out.write_bytes(pack(replace(unpack(out, (MODEL,)), files={MODEL: b"hello"})))
    with pytest.raises(ValueError, match=r"resnet18\.mnn\.zip holds no whole MNN model; export it again"):
        MnnRuntime(out)
