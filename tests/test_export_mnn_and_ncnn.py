"""MNN and ncnn files, both archives of half precision, read as the network does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crnn.checkpoint import load_checkpoint
from crnn.model import Crnn
from crnn.runtimes import Runtime, open_runtime
from export.calibration import Quantisation
from export.graph import read_graph
from export.report import Written
from export.targets import TARGETS, TargetName

SHAPES = ((1, 32), (3, 128), (1, 320), (2, 504), (1, 320), (3, 128), (1, 32))
"""(pictures, width), growing and shrinking."""
FARTHEST = {"MNN": 0.1, "ncnn": 0.05}
"""Log-probabilities from the network's, for weights of 11 bits."""

Export = Callable[..., tuple[Path, Path, Written]]


@pytest.fixture(params=["MNN", "ncnn"])
def package(request: pytest.FixtureRequest) -> str:
    """The package that reads a format, named as it is imported."""
    name: str = request.param
    pytest.importorskip(name, reason=f"the package {name} is not installed here")
    return name


@pytest.fixture
def exported(package: str, random_checkpoint: Callable[..., Path], tmp_path: Path) -> Export:
    """A function: sizes -> checkpoint, file, what was written."""
    target: TargetName = "mnn" if package == "MNN" else "ncnn"

    def make(backbone: str = "resnet18", **sizes: object) -> tuple[Path, Path, Written]:
        checkpoint = load_checkpoint(path := random_checkpoint(backbone, **sizes))
        graph = read_graph(Crnn.from_checkpoint(checkpoint))
        written = TARGETS[target].write(graph, checkpoint.info, Quantisation())
        out = tmp_path / f"{backbone}{TARGETS[target].suffix}"
        out.write_bytes(written.content)
        return path, out, written

    return make


def opened(out: Path) -> Runtime:
    return open_runtime(out, threads=1)


def assert_same_reading(package: str, checkpoint: Path, out: Path, channels: int = 3) -> None:
    network, file = opened(checkpoint), opened(out)
    generator = np.random.default_rng(5)
    for number, width in SHAPES:
        # as data.picture.scale gives them: in memory the channels of a pixel lie beside each other
        pictures = generator.uniform(-1, 1, (number, 32, width, channels)).astype(np.float32).transpose(0, 3, 1, 2)
        expected, given = network(pictures), file(pictures)
        assert given.shape == expected.shape == (number, width // 4, expected.shape[-1])
        assert given.dtype == np.float32
        assert np.ptp(expected) > 10  # a network that says the same of everything would prove nothing
        assert np.abs(expected - given).max() < FARTHEST[package]
        assert np.array_equal(given, file(pictures))


@pytest.mark.parametrize(
    "backbone", ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v3_small", "mobilenet_v3_large"]
)
def test_every_backbone_reads_as_in_torch_at_any_width(package: str, exported: Export, backbone: str) -> None:
    assert_same_reading(package, *exported(backbone)[:2])


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("layers", "linear"), [(1, 0), (3, 24)])
def test_every_encoder_reads_as_in_torch(
    package: str, exported: Export, bidirectional: bool, layers: int, linear: int
) -> None:
    assert_same_reading(package, *exported(bidirectional=bidirectional, layers=layers, linear=linear)[:2])


def test_a_grey_model_takes_one_channel(package: str, exported: Export) -> None:
    assert_same_reading(package, *exported(channels=1)[:2], channels=1)


def test_a_line_reads_the_same_alone_and_in_a_batch(exported: Export) -> None:
    file = opened(exported()[1])
    pictures = np.random.default_rng(1).uniform(-1, 1, (5, 3, 32, 96)).astype(np.float32)
    alone = np.concatenate([file(picture[None]) for picture in pictures])
    assert np.allclose(alone, file(pictures), atol=1e-4)


def test_the_file_gives_log_probabilities_of_small_classes_too(exported: Export) -> None:
    log_probs = opened(exported()[1])(np.ones((1, 3, 32, 64), np.float32))
    assert np.allclose(np.exp(log_probs).sum(-1), 1, atol=1e-4)
    assert np.isfinite(log_probs).all()


def test_the_model_file_alone_rebuilds_everything_but_the_weights(exported: Export) -> None:
    checkpoint, out, written = exported()
    file = opened(out)
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


def test_another_device_is_refused(package: str, exported: Export) -> None:
    with pytest.raises(ValueError, match=rf"the device 'cuda' is not there for {package} files; use --device cpu"):
        open_runtime(exported()[1], device="cuda")


def test_without_the_package_the_reader_says_what_to_install(
    package: str, exported: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = exported()[1]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ValueError,
        match=rf"resnet18\.\w+\.zip is read with {package}, which is not installed; pip install {package}",
    ):
        opened(out)
