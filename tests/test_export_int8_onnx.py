"""ONNX files in int8."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from crnn.checkpoint import ModelInfo, load_checkpoint
from crnn.model import Crnn
from crnn.quantisation import channel_scales, quantise_weight
from crnn.runtimes import open_runtime
from export.calibration import Quantisation, calibrate
from export.float_onnx import write_float_onnx
from export.graph import read_graph
from export.int8_onnx import KEPT, write_int8_onnx, write_portable_onnx
from export.operators import Add, Conv, Graph, Linear, Lstm
from export.report import Written

WRITERS = {"int8": write_int8_onnx, "portable": write_portable_onnx}
SHAPES = ((1, 32), (1, 128), (1, 320), (1, 128), (1, 32))


class Model(NamedTuple):
    checkpoint: Path
    graph: Graph
    info: ModelInfo
    quantisation: Quantisation

    def written(self, kind: str, *kept: str) -> Written:
        info = replace(self.info, one_line_at_a_time=kind == "int8")
        return WRITERS[kind](self.graph, info, replace(self.quantisation, keep_float=frozenset(kept)))

    def read(self, kind: str, pictures: NDArray[np.float32], *kept: str) -> NDArray[np.float32]:
        path = self.checkpoint.with_suffix(f".{kind}.onnx")
        path.write_bytes(self.written(kind, *kept).content)
        return open_runtime(path, threads=1)(pictures)


def pictures(number: int, width: int, seed: int = 5, channels: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, (number, channels, 32, width)).astype(np.float32)


@pytest.fixture
def model(random_checkpoint: Callable[..., Path]) -> Callable[..., Model]:
    """A function: sizes -> a model, calibrated on noise."""

    def make(backbone: str = "resnet18", **sizes: object) -> Model:
        checkpoint = load_checkpoint(path := random_checkpoint(backbone, **sizes))
        graph = read_graph(Crnn.from_checkpoint(checkpoint))
        ranges = calibrate(graph, [pictures(1, w, seed, graph.channels) for seed, w in enumerate((32, 128, 320, 64))])
        return Model(path, graph, checkpoint.info, Quantisation(ranges))

    return make


def relative(given: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(given - expected).mean()) / expected.std())


@pytest.mark.parametrize("kind", ["int8", "portable"])
@pytest.mark.parametrize(
    "backbone", ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v3_small", "mobilenet_v3_large"]
)
def test_every_backbone_reads_nearly_as_in_torch(model: Callable[..., Model], backbone: str, kind: str) -> None:
    made = model(backbone)
    network = open_runtime(made.checkpoint, threads=1)
    for number, width in SHAPES:
        some = pictures(number, width)
        assert relative(made.read(kind, some), network(some)) < 0.15


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("linear", [0, 24])
def test_every_encoder_is_written(model: Callable[..., Model], bidirectional: bool, linear: int) -> None:
    made = model(bidirectional=bidirectional, linear=linear, layers=3)
    some = pictures(1, 96)
    expected = open_runtime(made.checkpoint, threads=1)(some)
    assert relative(made.read("int8", some), expected) < 0.15
    assert relative(made.read("portable", some), expected) < 0.15


def test_every_weight_is_an_integer_of_the_scheme(model: Callable[..., Model]) -> None:
    made = model()
    file = onnx.load_from_string(made.written("int8").content)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in file.graph.initializer}
    convolutions = [operator for operator in made.graph.operators if isinstance(operator, Conv)]
    assert len(convolutions) == 21  # the projection among them
    for conv in convolutions:
        scales = stored[f"{conv.output}.weight.scale"]
        assert np.array_equal(scales, channel_scales(conv.weight))
        assert np.array_equal(stored[f"{conv.output}.weight.int8"], quantise_weight(conv.weight, scales))


def test_the_bytes_are_about_a_quarter(model: Callable[..., Model]) -> None:
    made = model()
    whole = write_float_onnx(made.graph, made.info, Quantisation())
    for kind in WRITERS:
        weights = [sum(operator.bytes for operator in written.operators) for written in (made.written(kind), whole)]
        assert weights[0] < weights[1] / 3.4  # narrow layers: their scales and biases weigh more than in a real one


def test_the_portable_file_has_standard_operators_alone(model: Callable[..., Model]) -> None:
    file = onnx.load_from_string(model().written("portable").content)
    assert {node.domain for node in file.graph.node} == {""}
    assert [entry.domain for entry in file.opset_import] == [""]
    assert "LSTM" in {node.op_type for node in file.graph.node}


def test_the_portable_file_reads_a_line_the_same_in_company(model: Callable[..., Model]) -> None:
    made, some = model(), pictures(3, 96)
    alone = np.concatenate([made.read("portable", picture[None]) for picture in some])
    assert np.allclose(made.read("portable", some), alone, atol=1e-3)


def test_the_int8_file_reads_lines_singly_and_so_the_same_in_company(model: Callable[..., Model]) -> None:
    made, some = model(), pictures(3, 96)
    alone = np.concatenate([made.read("int8", picture[None]) for picture in some])
    assert np.array_equal(made.read("int8", some), alone)


def test_the_features_are_on_a_grid_and_the_log_probabilities_are_not(model: Callable[..., Model]) -> None:
    """A grid on the output would make neighbours tie and flip texts."""
    file = onnx.load_from_string(model().written("int8").content)
    quantised = [node.input[0] for node in file.graph.node if node.op_type == "QuantizeLinear"]
    assert quantised[0] == "pictures"
    assert quantised[-1] == "backbone.projection.0"
    assert all(name == "pictures" or name.startswith("backbone.") for name in quantised)


def test_what_is_kept_in_float_is_float_and_said_to_be(model: Callable[..., Model]) -> None:
    made = model()
    kept = {type(operator): operator.output for operator in made.graph.operators if isinstance(operator, Conv)}
    lstm = next(o.output for o in made.graph.operators if isinstance(o, Lstm))
    linear = next(o.output for o in made.graph.operators if isinstance(o, Linear))
    names = (kept[Conv], lstm, linear)
    for kind in WRITERS:
        written = made.written(kind, *names)
        reports = {report.name: report for report in written.operators}
        assert {(reports[name].weights, reports[name].reason) for name in names} == {("float32", KEPT)}
        assert sum(report.weights == "float32" for report in written.operators) == 3
        file = onnx.load_from_string(written.content)
        floats = {t.name for t in file.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
        assert {f"{kept[Conv]}.weight", f"{lstm}.W", f"{lstm}.R", f"{linear}.weight"} <= floats


def test_with_everything_kept_in_float_the_file_reads_as_the_float_file(model: Callable[..., Model]) -> None:
    made, some = model(), pictures(1, 128)
    everything = [o.output for o in made.graph.operators if isinstance(o, Conv | Lstm | Linear)]
    expected = open_runtime(made.checkpoint, threads=1)(some)
    for kind in WRITERS:
        assert np.abs(made.read(kind, some, *everything) - expected).max() < 1e-4


def test_a_sum_of_what_was_kept_in_float_is_float_and_says_why(model: Callable[..., Model]) -> None:
    made = model()
    add = next(operator for operator in made.graph.operators if isinstance(operator, Add))
    (report,) = [r for r in made.written("int8", add.left).operators if r.name == add.output]
    assert (report.activations, bool(report.reason)) == ("float32", True)


def test_the_report_tells_what_computes_in_float(model: Callable[..., Model]) -> None:
    reports = model().written("portable").operators
    lstms = [report for report in reports if report.kind == "Lstm"]
    assert {(report.weights, report.activations) for report in lstms} == {("int8 per channel", "float32")}
    assert all(report.reason for report in lstms)
    assert all(report.activations == "uint8" for report in reports if report.kind in ("Conv", "Add", "MaxPool"))


def test_what_stays_float_behind_the_trunk_says_why(model: Callable[..., Model]) -> None:
    for kind in WRITERS:
        floats = [r for r in model().written(kind).operators if r.kind in ("MeanOverHeight", "LogSoftmax")]
        assert len(floats) == 2
        assert all(report.activations == "float32" and report.reason for report in floats)
