"""ncnn files read as the network does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from crnn.checkpoint import load_checkpoint
from crnn.model import Crnn
from crnn.runtimes import open_runtime
from crnn.runtimes.archive import pack, unpack
from crnn.runtimes.ncnn_adapter import BIN, PARAM, NcnnRuntime
from export.calibration import Quantisation
from export.graph import read_graph
from export.ncnn_files import write_ncnn
from export.operators import Graph
from export.report import Written

pytest.importorskip("ncnn", reason="the package ncnn is not installed here")

SHAPES = ((1, 32), (3, 128), (1, 320), (2, 504), (1, 320), (3, 128), (1, 32))
"""(pictures, width), growing and shrinking."""

Export = Callable[..., tuple[Path, Path, Written]]


@pytest.fixture
def exported(random_checkpoint: Callable[..., Path], tmp_path: Path) -> Export:
    """A function: sizes -> checkpoint, ncnn file, what was written."""

    def make(backbone: str = "resnet18", **sizes: object) -> tuple[Path, Path, Written]:
        checkpoint = load_checkpoint(path := random_checkpoint(backbone, **sizes))
        written = write_ncnn(read_graph(Crnn.from_checkpoint(checkpoint)), checkpoint.info, Quantisation())
        out = tmp_path / f"{backbone}.ncnn.zip"
        out.write_bytes(written.content)
        return path, out, written

    return make


def assert_same_reading(checkpoint: Path, out: Path, channels: int = 3) -> None:
    network, file = open_runtime(checkpoint, threads=1), NcnnRuntime(out, threads=1)
    generator = np.random.default_rng(5)
    for number, width in SHAPES:
        # as data.picture.scale gives them: in memory the channels of a pixel lie beside each other
        pictures = generator.uniform(-1, 1, (number, 32, width, channels)).astype(np.float32).transpose(0, 3, 1, 2)
        expected, given = network(pictures), file(pictures)
        assert given.shape == expected.shape == (number, width // 4, expected.shape[-1])
        assert given.dtype == np.float32
        assert np.ptp(expected) > 10  # a network that says the same of everything would prove nothing
        assert np.abs(expected - given).max() < 0.05  # weights of 11 bits
        assert np.array_equal(given, file(pictures))


@pytest.mark.parametrize(
    "backbone", ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v3_small", "mobilenet_v3_large"]
)
def test_every_backbone_reads_in_ncnn_as_in_torch_at_any_width(exported: Export, backbone: str) -> None:
    assert_same_reading(*exported(backbone)[:2])


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("layers", "linear"), [(1, 0), (3, 24)])
def test_every_encoder_reads_in_ncnn_as_in_torch(
    exported: Export, bidirectional: bool, layers: int, linear: int
) -> None:
    assert_same_reading(*exported(bidirectional=bidirectional, layers=layers, linear=linear)[:2])


def test_a_grey_model_takes_one_channel(exported: Export) -> None:
    assert_same_reading(*exported(channels=1)[:2], channels=1)


def test_a_line_reads_the_same_alone_and_in_a_batch(exported: Export) -> None:
    file = NcnnRuntime(exported()[1], threads=1)
    pictures = np.random.default_rng(1).uniform(-1, 1, (5, 3, 32, 96)).astype(np.float32)
    alone = np.concatenate([file(picture[None]) for picture in pictures])
    assert np.allclose(alone, file(pictures), atol=1e-4)


def test_the_file_gives_log_probabilities_of_small_classes_too(exported: Export) -> None:
    log_probs: NDArray[np.float32] = NcnnRuntime(exported()[1], threads=1)(np.ones((1, 3, 32, 64), np.float32))
    assert np.allclose(np.exp(log_probs).sum(-1), 1, atol=1e-4)
    assert np.isfinite(log_probs).all()


def test_the_model_file_alone_rebuilds_everything_but_the_weights(exported: Export) -> None:
    checkpoint, out, written = exported()
    file = NcnnRuntime(out, threads=1)
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


def test_the_same_network_makes_the_same_file(exported: Export) -> None:
    assert exported()[2].content == exported()[2].content


def test_a_value_with_several_readers_is_split_for_each(exported: Export) -> None:
    layers = unpack(exported("mobilenet_v3_small")[1], (PARAM,)).files[PARAM].decode().splitlines()
    assert layers[0] == "7767517"
    fields = [line.split() for line in layers[2:]]
    read, made = [], []
    for _, _, inputs, outputs, *names in fields:
        read += names[: int(inputs)]
        made += names[int(inputs) : int(inputs) + int(outputs)]
    assert layers[1] == f"{len(fields)} {len(made)}"
    assert len(set(read)) == len(read)  # ncnn reads a value once
    assert set(made) - set(read) == {"log_probs"}


def test_writing_needs_no_ncnn(random_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = load_checkpoint(random_checkpoint())
    monkeypatch.setitem(sys.modules, "ncnn", None)
    assert write_ncnn(read_graph(Crnn.from_checkpoint(checkpoint)), checkpoint.info, Quantisation()).content


def test_weights_beyond_half_precision_are_refused_with_their_layer(random_checkpoint: Callable[..., Path]) -> None:
    checkpoint = load_checkpoint(random_checkpoint())
    checkpoint.weights["classifier.weight"][0, 0] = 1e5
    graph = read_graph(Crnn.from_checkpoint(checkpoint))
    with pytest.raises(ValueError, match=r"weights of classifier reach 100000, .*; export to onnx instead"):
        write_ncnn(graph, checkpoint.info, Quantisation())


def test_an_operator_that_ncnn_has_no_layer_for_is_refused_by_name() -> None:
    @dataclass(frozen=True)
    class Gelu:
        output: str = "backbone.gelu"
        input: str = "pictures"

    graph = Graph((cast(Any, Gelu()),), 3, 32, 96)
    with pytest.raises(
        ValueError, match=r"the Gelu at backbone\.gelu is none that ncnn files can hold; export to onnx"
    ):
        write_ncnn(graph, cast(Any, None), Quantisation())


@pytest.mark.parametrize("damaged", [{PARAM: b"hello"}, {BIN: b""}])
def test_an_archive_without_a_whole_model_is_refused(exported: Export, damaged: dict[str, bytes]) -> None:
    out = exported()[1]
    archive = unpack(out, (PARAM, BIN))
    out.write_bytes(pack(replace(archive, files={**archive.files, **damaged})))
    with pytest.raises(ValueError, match=r"resnet18\.ncnn\.zip holds layers that this ncnn cannot load; upgrade"):
        NcnnRuntime(out)


def test_another_device_is_refused(exported: Export) -> None:
    with pytest.raises(ValueError, match=r"the device 'cuda' is not there for ncnn files; use --device cpu"):
        NcnnRuntime(exported()[1], device="cuda")


def test_without_the_package_the_reader_says_what_to_install(exported: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    out = exported()[1]
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(
        ValueError, match=r"resnet18\.ncnn\.zip is read with ncnn, which is not installed; pip install ncnn"
    ):
        NcnnRuntime(out)
