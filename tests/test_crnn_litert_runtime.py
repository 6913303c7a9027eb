"""Reading TFLite files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from crnn.charset import Charset
from crnn.checkpoint import ModelInfo, load_checkpoint
from crnn.model import Crnn
from crnn.recogniser import Recogniser
from crnn.runtimes import open_runtime
from crnn.runtimes.litert_runtime import LiteRtRuntime
from data.lines import Picture
from export.calibration import Quantisation
from export.flatbuffer import Flatbuffer
from export.graph import read_graph
from export.operators import Graph
from export.tflite_writer import write_fixed_tflite, write_float_tflite

FIXED_WIDTH = 96


@pytest.fixture
def network(random_checkpoint: Callable[..., Path]) -> tuple[Graph, ModelInfo, Path]:
    """A small random network with the checkpoint it was read from."""
    checkpoint = load_checkpoint(path := random_checkpoint())
    info = replace(checkpoint.info, target="tflite", one_line_at_a_time=True)
    return read_graph(Crnn.from_checkpoint(checkpoint)), info, path


@pytest.fixture
def free(network: tuple[Graph, ModelInfo, Path], tmp_path: Path) -> Path:
    """A file of free width."""
    graph, info, _ = network
    path = tmp_path / "free.tflite"
    path.write_bytes(write_float_tflite(graph, info, Quantisation()).content)
    return path


@pytest.fixture
def fixed(network: tuple[Graph, ModelInfo, Path], tmp_path: Path) -> Path:
    """A file of one width."""
    graph, info, _ = network
    spec = replace(info.input_spec, min_width=FIXED_WIDTH, max_width=FIXED_WIDTH, narrow="margins")
    path = tmp_path / "fixed.tflite"
    own = replace(info, target="tflite-fixed", input_spec=spec)
    path.write_bytes(write_fixed_tflite(graph, own, Quantisation()).content)
    return path


def some_pictures(count: int, width: int) -> NDArray[np.float32]:
    return np.random.default_rng(width).uniform(-1, 1, (count, 3, 32, width)).astype(np.float32)


@pytest.mark.parametrize("kind", ["free", "fixed"])
def test_several_pictures_are_read_one_by_one(kind: str, request: pytest.FixtureRequest) -> None:
    runtime = open_runtime(request.getfixturevalue(kind), threads=1)
    pictures = some_pictures(3, FIXED_WIDTH)
    together = runtime(pictures)
    assert together.shape == (3, FIXED_WIDTH // 4, 96)
    assert together.dtype == np.float32
    assert np.array_equal(together, np.concatenate([runtime(picture[None]) for picture in pictures]))
    assert not np.array_equal(together[0], together[1])


@pytest.mark.parametrize("kind", ["free", "fixed"])
def test_a_file_gives_what_its_network_gives(
    kind: str, network: tuple[Graph, ModelInfo, Path], request: pytest.FixtureRequest
) -> None:
    pictures = some_pictures(2, FIXED_WIDTH)
    expected = open_runtime(network[2], threads=1)(pictures)
    given = open_runtime(request.getfixturevalue(kind), threads=1)(pictures)
    np.testing.assert_allclose(given, expected, atol=1e-4)
    np.testing.assert_allclose(np.exp(given).sum(-1), 1, atol=1e-5)


def test_widths_may_grow_and_shrink(free: Path, network: tuple[Graph, ModelInfo, Path]) -> None:
    file, torch = open_runtime(free, threads=1), open_runtime(network[2], threads=1)
    for width in (128, 32, 328, 336, 64, 64, 128):
        np.testing.assert_allclose(file(some_pictures(1, width)), torch(some_pictures(1, width)), atol=1e-4)


def test_a_file_tells_its_info_path_threads_and_parameters(free: Path, network: tuple[Graph, ModelInfo, Path]) -> None:
    graph, info, _ = network
    runtime = open_runtime(free, threads=2)
    assert (runtime.info, runtime.path, runtime.threads) == (info, free, 2)
    # one bias where torch's two directions of two layers have two each; zeros that both layers' states begin with
    assert runtime.parameters == graph.parameters - 2 * 2 * 4 * 16 + 2 * 16
    assert open_runtime(free).threads >= 1


def test_a_recogniser_reads_with_it(free: Path, fixed: Path, draw_word: Callable[[str], Picture]) -> None:
    pictures = [draw_word(text) for text in ("Milk", "a longer word", "Total", "I")]
    for path in (free, fixed):
        readings = Recogniser(open_runtime(path, threads=1)).read(pictures)
        again = Recogniser(open_runtime(path, threads=1)).read(pictures[::-1])[::-1]
        assert [reading.text for reading in readings] == [reading.text for reading in again]


def test_another_width_than_the_fixed_one_is_refused(fixed: Path) -> None:
    runtime = open_runtime(fixed, threads=1)
    with pytest.raises(ValueError, match=r"takes pictures of \(32, 96, 3\).* got one of \(32, 64, 3\)") as refusal:
        runtime(some_pictures(1, 64))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, -200])
def test_a_cut_file_is_refused_in_one_sentence(free: Path, tmp_path: Path, kept: float) -> None:
    content = free.read_bytes()
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"cut\.tflite is not a whole TFLite model") as refusal:
        open_runtime(cut)
    assert "\n" not in str(refusal.value)


def test_a_file_of_another_kind_is_refused_in_one_sentence(tmp_path: Path, colour_reader: Path) -> None:
    other = tmp_path / "other.tflite"
    other.write_bytes(colour_reader.read_bytes())
    with pytest.raises(ValueError, match=r"other\.tflite is not a whole TFLite model") as refusal:
        open_runtime(other)
    assert "\n" not in str(refusal.value)


def test_a_tflite_file_that_is_not_ours_is_refused_in_one_sentence(tmp_path: Path) -> None:
    file = Flatbuffer()
    graph = file.subgraph("main")
    given = graph.tensor("given", (1, 32, 8, 3))
    output = graph.made("NEG", [given], "output", schema.NegOptionsT())
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(file.finish({"given": given}, {"output": output}, {"character": "abc"}))
    with pytest.raises(ValueError, match="is a TFLite model, but not one of pocket-crnn") as refusal:
        open_runtime(foreign)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("write", [write_float_tflite, write_fixed_tflite])
def test_metadata_that_contradict_the_graph_are_refused(
    write: Callable[..., object], network: tuple[Graph, ModelInfo, Path], tmp_path: Path
) -> None:
    graph, info, _ = network
    target = "tflite-fixed" if write is write_fixed_tflite else "tflite"
    other = replace(info, charset=Charset.of("abc"), target=target)
    path = tmp_path / "contradicting.tflite"
    path.write_bytes(write(graph, other, Quantisation()).content)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="has 96 classes, where its metadata describes 4"):
        open_runtime(path)


def test_a_device_that_is_not_there_is_refused_and_not_replaced(free: Path) -> None:
    for device in ("cuda:99", "gpu"):
        with pytest.raises(ValueError, match=f"the device '{device}' is not there for TFLite files"):
            open_runtime(free, device=device)


def test_the_suffix_is_told_in_any_case(free: Path) -> None:
    assert isinstance(open_runtime(free.rename(free.with_suffix(".TFLITE"))), LiteRtRuntime)


@pytest.mark.parametrize("kind", ["free", "fixed"])
def test_reading_imports_no_torch_and_says_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    program = (
        "import sys, numpy; from pathlib import Path; from crnn.runtimes import open_runtime; "
        f"open_runtime(Path({str(request.getfixturevalue(kind))!r}))(numpy.zeros((2, 3, 32, 96), 'float32')); "
        "print([name for name in ('torch', 'torchvision', 'tensorflow', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
