"""MNN files read as the network does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from crnn.checkpoint import load_checkpoint
from crnn.model import Crnn
from crnn.runtimes import open_runtime
from crnn.runtimes.archive import pack, unpack
from crnn.runtimes.mnn_adapter import MODEL, MnnRuntime
from export.calibration import Quantisation
from export.graph import read_graph
from export.mnn_file import write_mnn
from export.report import Written

pytest.importorskip("MNN", reason="the package MNN is not installed here")

SHAPES = ((1, 32), (3, 128), (1, 320), (2, 504), (1, 320), (3, 128), (1, 32))
"""(pictures, width), growing and shrinking."""

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


def assert_same_reading(checkpoint: Path, out: Path, channels: int = 3) -> None:
    network, file = open_runtime(checkpoint, threads=1), MnnRuntime(out, threads=1)
    generator = np.random.default_rng(5)
    for number, width in SHAPES:
        # as data.picture.scale gives them: in memory the channels of a pixel lie beside each other
        pictures = generator.uniform(-1, 1, (number, 32, width, channels)).astype(np.float32).transpose(0, 3, 1, 2)
        expected, given = network(pictures), file(pictures)
        assert given.shape == expected.shape == (number, width // 4, expected.shape[-1])
        assert given.dtype == np.float32
        assert np.ptp(expected) > 10  # a network that says the same of everything would prove nothing
        assert np.abs(expected - given).max() < 0.1  # weights of 11 bits
        assert np.array_equal(given, file(pictures))


@pytest.mark.parametrize(
    "backbone", ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v3_small", "mobilenet_v3_large"]
)
def test_every_backbone_reads_in_mnn_as_in_torch_at_any_width(exported: Export, backbone: str) -> None:
    assert_same_reading(*exported(backbone)[:2])


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("layers", "linear"), [(1, 0), (3, 24)])
def test_every_encoder_reads_in_mnn_as_in_torch(
    exported: Export, bidirectional: bool, layers: int, linear: int
) -> None:
    assert_same_reading(*exported(bidirectional=bidirectional, layers=layers, linear=linear)[:2])


def test_a_grey_model_takes_one_channel(exported: Export) -> None:
    assert_same_reading(*exported(channels=1)[:2], channels=1)


def test_a_line_reads_the_same_alone_and_in_a_batch(exported: Export) -> None:
    file = MnnRuntime(exported()[1], threads=1)
    pictures = np.random.default_rng(1).uniform(-1, 1, (5, 3, 32, 96)).astype(np.float32)
    alone = np.concatenate([file(picture[None]) for picture in pictures])
    assert np.allclose(alone, file(pictures), atol=1e-4)


def test_the_file_gives_log_probabilities_of_small_classes_too(exported: Export) -> None:
    log_probs: NDArray[np.float32] = MnnRuntime(exported()[1], threads=1)(np.ones((1, 3, 32, 64), np.float32))
    assert np.allclose(np.exp(log_probs).sum(-1), 1, atol=1e-4)
    assert np.isfinite(log_probs).all()


def test_the_model_file_alone_rebuilds_everything_but_the_weights(exported: Export) -> None:
    checkpoint, out, written = exported()
    file = MnnRuntime(out, threads=1)
    assert file.info == load_checkpoint(checkpoint).info
    assert file.path == out
    assert file.threads == 1
    assert 0.9 < 2 * file.parameters / sum(operator.bytes for operator in written.operators) < 1.1  # half precision


def test_the_report_names_every_operator_and_its_half_precision(exported: Export) -> None:
    checkpoint, _, written = exported("mobilenet_v3_small")
    graph = read_graph(Crnn.from_checkpoint(load_checkpoint(checkpoint)))
    assert [operator.name for operator in written.operators] == [operator.output for operator in graph.operators]
    kinds = {operator.kind: operator.weights for operator in written.operators}
    assert kinds["Conv"] == kinds["Lstm"] == kinds["Linear"] == "float16"
    assert kinds["ScaleChannels"] == "none"


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


def test_another_device_is_refused(exported: Export) -> None:
    with pytest.raises(ValueError, match=r"the device 'cuda' is not there for MNN files; use --device cpu"):
        MnnRuntime(exported()[1], device="cuda")


def test_without_the_package_the_reader_says_what_to_install(exported: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    out = exported()[1]
    monkeypatch.setitem(sys.modules, "MNN", None)
    with pytest.raises(
        ValueError, match=r"resnet18\.mnn\.zip is read with MNN, which is not installed; pip install MNN"
    ):
        MnnRuntime(out)
