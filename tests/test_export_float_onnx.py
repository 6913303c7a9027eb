"""ONNX files in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from crnn.charset import Charset
from crnn.checkpoint import load_checkpoint
from crnn.model import Crnn
from crnn.runtimes import open_runtime
from export.calibration import Quantisation
from export.float_onnx import metadata, write_float_onnx, write_half_onnx
from export.graph import read_graph

SHAPES = ((1, 32), (3, 128), (1, 320), (3, 320), (1, 128), (3, 32))
"""(pictures, width), growing and shrinking."""


@pytest.fixture
def exported(random_checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """A function: sizes -> (checkpoint, ONNX file)."""

    def make(backbone: str = "resnet18", **sizes: object) -> tuple[Path, Path]:
        checkpoint = load_checkpoint(path := random_checkpoint(backbone, **sizes))
        out = tmp_path / f"{backbone}.onnx"
        graph = read_graph(Crnn.from_checkpoint(checkpoint))
        out.write_bytes(write_float_onnx(graph, checkpoint.info, Quantisation()).content)
        return path, out

    return make


def largest_difference(checkpoint: Path, out: Path, channels: int = 3) -> float:
    network, file = open_runtime(checkpoint, threads=1), open_runtime(out, threads=1)
    generator = np.random.default_rng(5)
    found = []
    for number, width in SHAPES:
        pictures = generator.uniform(-1, 1, (number, channels, 32, width)).astype(np.float32)
        expected, given = network(pictures), file(pictures)
        assert given.shape == expected.shape == (number, width // 4, expected.shape[-1])
        assert np.ptp(expected) > 10  # a network that says the same of everything would prove nothing
        found.append(np.abs(expected - given).max())
    return float(max(found))


@pytest.mark.parametrize(
    "backbone", ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v3_small", "mobilenet_v3_large"]
)
def test_every_backbone_reads_in_onnx_as_in_torch_at_any_width_and_batch(
    exported: Callable[..., tuple[Path, Path]], backbone: str
) -> None:
    assert largest_difference(*exported(backbone)) < 1e-4


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("linear", [0, 24])
@pytest.mark.parametrize("layers", [1, 3])
def test_every_encoder_reads_in_onnx_as_in_torch(
    exported: Callable[..., tuple[Path, Path]], bidirectional: bool, linear: int, layers: int
) -> None:
    files = exported(bidirectional=bidirectional, linear=linear, layers=layers)
    assert largest_difference(*files) < 1e-4


def test_features_that_need_no_projection_are_exported_too(exported: Callable[..., tuple[Path, Path]]) -> None:
    assert largest_difference(*exported(features=64)) < 1e-4


def test_a_grey_model_takes_one_channel(exported: Callable[..., tuple[Path, Path]]) -> None:
    assert largest_difference(*exported(channels=1), channels=1) < 1e-4


def test_a_line_reads_the_same_alone_and_in_a_batch(exported: Callable[..., tuple[Path, Path]]) -> None:
    file = open_runtime(exported()[1], threads=1)
    pictures = np.random.default_rng(1).uniform(-1, 1, (5, 3, 32, 96)).astype(np.float32)
    alone = np.concatenate([file(picture[None]) for picture in pictures])
    assert np.allclose(alone, file(pictures), atol=1e-5)


def test_the_file_gives_log_probabilities(exported: Callable[..., tuple[Path, Path]]) -> None:
    file = open_runtime(exported()[1], threads=1)
    log_probs: NDArray[np.float32] = file(np.zeros((1, 3, 32, 64), np.float32))
    assert np.allclose(np.exp(log_probs).sum(-1), 1, atol=1e-5)


def test_batch_and_width_are_free_and_no_node_computes_a_shape(exported: Callable[..., tuple[Path, Path]]) -> None:
    graph = onnx.load(exported("mobilenet_v3_small")[1]).graph
    (pictures,), (log_probs,) = graph.input, graph.output
    assert pictures.name == "pictures"
    assert log_probs.name == "log_probs"
    assert [d.dim_param or d.dim_value for d in pictures.type.tensor_type.shape.dim] == ["N", 3, 32, "W"]
    assert [d.dim_param or d.dim_value for d in log_probs.type.tensor_type.shape.dim] == ["N", "T", 96]
    kinds = {node.op_type for node in graph.node}
    assert not kinds & {"Shape", "Gather", "Slice", "Concat", "ConstantOfShape", "Constant", "BatchNormalization"}


def test_the_classifier_sees_lines_first_without_a_transposition_behind_the_last_layer(
    exported: Callable[..., tuple[Path, Path]],
) -> None:
    graph = onnx.load(exported()[1]).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("Transpose") == 3  # into the first LSTM, and one behind each of the two
    assert kinds[-4:] == ["Reshape", "MatMul", "Add", "LogSoftmax"]


def test_the_metadata_rebuilds_everything_but_the_weights(exported: Callable[..., tuple[Path, Path]]) -> None:
    checkpoint, out = exported()
    assert open_runtime(out, threads=1).info == load_checkpoint(checkpoint).info


def test_other_readers_find_the_characters_without_the_space_which_is_the_last_class(
    random_checkpoint: Callable[..., Path],
) -> None:
    info = load_checkpoint(random_checkpoint(charset=Charset.of("b a'"))).info
    assert metadata(info)["character"].splitlines() == ["'", "a", "b"]
    assert info.charset.encode(" ") == [4]


def test_an_older_runtime_can_read_the_file(exported: Callable[..., tuple[Path, Path]]) -> None:
    model = onnx.load(exported()[1])
    assert model.ir_version <= 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


def test_half_precision_halves_the_bytes_and_hardly_changes_the_numbers(random_checkpoint: Callable[..., Path]) -> None:
    checkpoint = load_checkpoint(path := random_checkpoint())
    graph = read_graph(Crnn.from_checkpoint(checkpoint))
    whole = write_float_onnx(graph, checkpoint.info, Quantisation())
    half = write_half_onnx(graph, checkpoint.info, Quantisation())
    weights = [sum(operator.bytes for operator in written.operators) for written in (whole, half)]
    assert weights[1] < 0.52 * weights[0]
    (out := path.with_suffix(".onnx")).write_bytes(half.content)
    assert 1e-4 < largest_difference(path, out) < 0.2


def test_the_report_names_every_operator_with_its_bytes(random_checkpoint: Callable[..., Path]) -> None:
    checkpoint = load_checkpoint(random_checkpoint())
    graph = read_graph(Crnn.from_checkpoint(checkpoint))
    written = write_float_onnx(graph, checkpoint.info, Quantisation())
    assert [report.name for report in written.operators] == [operator.output for operator in graph.operators]
    assert {report.weights for report in written.operators} == {"none", "float32"}
    stored = sum(report.bytes for report in written.operators)
    assert 4 * graph.parameters <= stored < len(written.content)
